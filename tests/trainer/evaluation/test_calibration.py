"""Temperature, threshold rules and the abstain band."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from trainer.errors import ConfigError
from trainer.evaluation import calibration, fit_scaling
from trainer.evaluation.cases import Cases, count_confusion
from trainer.model_json.scaling import Scaling


def cases(logits, label, patient_id=None) -> Cases:
    names = [str(k) for k in range(len(logits))]
    return Cases(np.full(len(logits), 0.5), logits, label, names, patient_id or names, names)


def binormal(
    count: int, seed: int, temperature: float = 1.0, bias: float = 0.0, positive: float = 0.5
) -> Cases:
    """Logits that are `temperature` times the true log odds (AUROC 0.93) plus a bias."""
    generator = np.random.default_rng(seed)
    label = (generator.random(count) < positive).astype(int)
    separation = 2.087  # AUROC = Phi(separation / sqrt(2))
    score = generator.normal(size=count) + separation * (label - 0.5)
    return cases(temperature * (separation * score + bias + logit(positive)), label)


def cut(point: calibration.OperatingPoint) -> float:
    """The logit of the network at and above which a case is positive."""
    scaling = point.scaling
    return float((logit(point.threshold) - scaling.intercept) * scaling.temperature)


rates = {
    "sensitivity": lambda c: c["tp"] / (c["tp"] + c["fn"]),
    "specificity": lambda c: c["tn"] / (c["tn"] + c["fp"]),
}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature):
    scored = binormal(20_000, seed=1, temperature=temperature)
    assert fit_scaling.fit_temperature(scored.logit, scored.label) == pytest.approx(
        temperature, rel=0.05
    )


def test_temperature_minimises_the_log_loss():
    scored = binormal(200, seed=2, temperature=2.0)
    fitted = fit_scaling.fit_temperature(scored.logit, scored.label)
    n1, n0 = scored.label.sum(), (1 - scored.label).sum()
    target = np.where(scored.label == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    grid = np.exp(np.linspace(np.log(0.2), np.log(10), 4001))
    loss = [np.mean(np.logaddexp(0, scored.logit / t) - target * scored.logit / t) for t in grid]
    assert fitted == pytest.approx(grid[np.argmin(loss)], rel=2e-3)


SEPARABLE = cases(np.repeat([-8.0, 8.0], 30), np.repeat([0, 1], 30))
NOISE = cases(np.random.default_rng(0).normal(size=200) * 20, np.tile([0, 1], 100))


@pytest.mark.parametrize("scored", [SEPARABLE, NOISE], ids=["separable", "random"])
def test_separable_and_random_labels_keep_the_temperature_in_bounds(scored):
    low, high = fit_scaling.TEMPERATURE_RANGE
    point = calibration.fit(scored)
    assert low <= point.scaling.temperature <= high
    assert 0 < point.threshold < 1


def test_separable_labels_have_the_temperature_of_platts_targets():
    """30 of 30 is taken for 31 in 32."""
    assert fit_scaling.fit_temperature(SEPARABLE.logit, SEPARABLE.label) == pytest.approx(
        8 / np.log(31), rel=1e-3
    )


@pytest.mark.parametrize("label", [[1] * 40, [0] * 40, [0, 1, 0, 1], []])
def test_nothing_to_fit_on_leaves_the_model_as_it_is(label, caplog):
    point = calibration.fit(cases(np.linspace(-3, 3, len(label)), label), abstain=0.2)
    assert point == calibration.OperatingPoint(
        Scaling(), 0.5, calibration.DEFAULT_RULE, None, fitted=False
    )
    assert "Nothing to calibrate on" in caplog.text


def test_apply_divides_the_logit_and_adds_the_intercept():
    scored = calibration.apply(Scaling(2.0, 0.5), cases([-2.0, 0.0, 4.0], [0, 1, 1]))
    np.testing.assert_allclose(scored.probability, expit([-0.5, 0.5, 2.5]))


@settings(max_examples=150, deadline=None)
@given(
    scored=st.lists(
        st.tuples(st.integers(-40, 40), st.integers(0, 1)), min_size=10, max_size=60
    ).filter(lambda rows: 0 < sum(label for _, label in rows) < len(rows)),
    rate=st.sampled_from(["sensitivity", "specificity"]),
    least=st.sampled_from(["0.5", "0.8", "0.9", "0.95", "1", "1.0"]),
)
def test_a_constraint_holds_and_costs_as_little_as_it_can(scored, rate, least):
    images = cases([score / 4 for score, _ in scored], [label for _, label in scored])
    point = calibration.fit(images, f"{rate}>={least}")
    calibrated = calibration.apply(point.scaling, images)
    other = "specificity" if rate == "sensitivity" else "sensitivity"
    reached = count_confusion(calibrated, point.threshold)
    assert 0 < point.threshold < 1
    assert rates[rate](reached) >= float(least) - 1e-12
    every = [count_confusion(calibrated, cut) for cut in [*np.unique(calibrated.probability), 2.0]]
    allowed = [
        (rates[other](counts), rates[rate](counts))
        for counts in every
        if rates[rate](counts) >= float(least) - 1e-12
    ]
    assert (rates[other](reached), rates[rate](reached)) == pytest.approx(max(allowed))


def test_the_constrained_threshold_lies_in_the_middle_of_the_gap():
    images = cases([-3, -2, -1, -1, 1, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    point = calibration.fit(images, "sensitivity>=1")
    assert cut(point) == pytest.approx(2.0)


@pytest.mark.parametrize("rule", ["sensitivity>=0.95", "specificity>=0.95"])
def test_a_constraint_gives_nothing_away_for_nothing(rule):
    """If the classes are separable, all cases are called correctly, although 19 of 20 suffice."""
    images = cases(
        np.concatenate([np.linspace(-5, -1, 20), np.linspace(1, 5, 20)]), np.repeat([0, 1], 20)
    )
    point = calibration.fit(images, rule)
    assert count_confusion(calibration.apply(point.scaling, images), point.threshold) == {
        "tp": 20,
        "fp": 0,
        "fn": 0,
        "tn": 20,
    }
    assert cut(point) == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    abstain=st.floats(0.01, 0.6),
    rule=st.sampled_from(["kappa", "0.5", "sensitivity>=0.9"]),
)
def test_the_band_holds_at_most_its_share_and_those_nearest(seed, abstain, rule):
    images = binormal(60, seed, temperature=2.0)
    images = dataclasses.replace(images, logit=np.round(images.logit, 1))
    point = calibration.fit(images, rule, abstain)
    if point.uncertain_band is None:
        return
    low, high = point.uncertain_band
    probability = calibration.apply(point.scaling, images).probability
    inside = (probability >= low) & (probability < high)
    distance = np.abs(logit(probability) - logit(point.threshold))
    assert 0 < low < point.threshold < high < 1
    assert inside.sum() <= abstain * len(images) + 1e-6
    assert not inside.any() or distance[inside].max() <= distance[~inside].min() + 1e-9


def test_the_band_is_off_by_default_and_grows_with_its_share():
    images = binormal(200, seed=0)
    assert calibration.fit(images).uncertain_band is None
    widths = [
        np.subtract(*calibration.fit(images, abstain=share).uncertain_band[::-1])
        for share in (0.05, 0.2, 0.4)
    ]
    assert widths == sorted(widths)
    probability = calibration.apply(calibration.fit(images).scaling, images).probability
    low, high = calibration.fit(images, abstain=0.2).uncertain_band
    assert np.sum((probability >= low) & (probability < high)) == 40


@pytest.mark.parametrize("rule", ["kappa", "youden", "accuracy"])
def test_many_images_find_a_biased_models_threshold(rule):
    # The logit is 1.5 too high, so that the best cut is at 1.5, not at 0.
    point = calibration.fit(binormal(6000, seed=3, temperature=2.0, bias=1.5), rule)
    assert cut(point) / 2.0 == pytest.approx(1.5, abs=0.25)


def test_youden_cuts_at_the_prevalence_and_accuracy_at_one_half():
    images = binormal(20_000, seed=4, positive=0.15)
    assert calibration.fit(images, "youden").threshold == pytest.approx(0.15, abs=0.05)
    assert calibration.fit(images, "accuracy").threshold == pytest.approx(0.5, abs=0.05)
    assert 0.2 < calibration.fit(images, "kappa").threshold < 0.5


@pytest.mark.parametrize("rule", ["kappa", "youden", "accuracy"])
def test_the_implied_cut_is_the_best_of_the_expected_objective(rule):
    # Expected counts under the model's own probabilities, every cut tried.
    probability = np.random.default_rng(5).beta(0.5, 1.2, size=4000)

    def objective(cut: float) -> float:
        called = probability >= cut
        tp, fp = probability[called].sum(), (1 - probability[called]).sum()
        positives, negatives = probability.sum(), (1 - probability).sum()
        fn, tn, total = positives - tp, negatives - fp, len(probability)
        if rule == "youden":
            return tp / positives + tn / negatives
        chance = (
            ((tp + fp) * positives + (fn + tn) * negatives) / total**2 if rule == "kappa" else 0
        )
        return ((tp + tn) / total - chance) / (1 - chance)

    cuts = np.linspace(0.01, 0.99, 981)
    best = cuts[np.argmax([objective(cut) for cut in cuts])]
    assert calibration.compute_implied_probability(
        logit(probability), probability, rule
    ) == pytest.approx(best, abs=0.01)


def test_a_small_validation_split_costs_less_than_the_raw_optimum():
    # 60 validation splits of 190 images. The binormal model is known, so the loss is exact.
    truth = binormal(100_000, seed=99, temperature=2.0)
    positive, negative = (
        np.sort(truth.logit[truth.label == 1]),
        np.sort(truth.logit[truth.label == 0]),
    )

    def accuracy(cut: float) -> float:
        return (
            len(positive) - np.searchsorted(positive, cut) + np.searchsorted(negative, cut)
        ) / len(truth)

    lost: dict[str, list[float]] = {"fitted": [], "raw": []}
    for seed in range(60):
        images = binormal(190, seed, temperature=2.0)
        point = calibration.fit(images)
        order = np.sort(images.logit)
        raw = max(
            (order[1:] + order[:-1]) / 2,
            key=lambda cut: np.mean((images.logit >= cut) == images.label),
        )
        lost["fitted"].append(accuracy(0.0) - accuracy(cut(point)))
        lost["raw"].append(accuracy(0.0) - accuracy(raw))
    assert np.mean(lost["fitted"]) < 0.003
    assert np.mean(lost["fitted"]) < 0.5 * np.mean(lost["raw"])


def test_scores_that_rank_the_wrong_way_do_not_turn_the_threshold_over(caplog):
    images = binormal(300, seed=6)
    point = calibration.fit(dataclasses.replace(images, logit=-images.logit))
    assert 0 < point.threshold < 1
    assert "do not rank" in caplog.text


def test_the_order_of_images_does_not_matter():
    images = binormal(150, seed=7)
    shuffled = images.take(np.random.default_rng(0).permutation(len(images)))
    a, b = calibration.fit(images, abstain=0.1), calibration.fit(shuffled, abstain=0.1)
    assert dataclasses.astuple(a.scaling) == pytest.approx(dataclasses.astuple(b.scaling), abs=1e-4)
    assert a.threshold == pytest.approx(b.threshold, abs=1e-4)
    assert a.uncertain_band == pytest.approx(b.uncertain_band)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "Youden",
        "f1",
        "sensitivity>0.9",
        "sensitivity >=0.9",
        "sensitivity>=95",
        "specificity>=1.1",
        "0",
        "1",
        "sensitivity>=0.0",
        "0.0",
        "-0.5",
    ],
)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ConfigError, match="threshold rule: expected one of"):
        calibration.fit(binormal(50, seed=0), rule)


def test_a_fixed_threshold_is_taken_as_it_is():
    assert calibration.fit(binormal(50, seed=0), "0.35").threshold == 0.35


def test_a_share_of_all_images_cannot_be_uncertain():
    with pytest.raises(ConfigError, match=r"\[0, 1\), got 1.0"):
        calibration.fit(binormal(50, seed=0), abstain=1.0)
