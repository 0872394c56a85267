"""Calibration with an intercept, chosen by cross-fitting, for images and for studies."""

import dataclasses

import numpy as np
import pytest
import sklearn.linear_model
from scipy.special import logit

from trainer.evaluation import bootstrap, calibration, fit_scaling
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.model_json.scaling import Scaling

SEPARATION = 2.087  # AUROC 0.93


def draw(
    studies: int,
    seed: int,
    positive: float = 0.5,
    shift: float = 0.0,
    scale: float = 1.0,
    images: int = 1,
) -> Cases:
    """Logits that are true log odds plus a shift, times a scale; studies of one to `images` images.

    Half of the variance within a class is that of the study.
    """
    generator = np.random.default_rng(seed)
    label_of_study = (generator.random(studies) < positive).astype(int)
    study = np.repeat(np.arange(studies), generator.integers(1, images + 1, studies))
    label = label_of_study[study]
    noise = generator.normal(size=studies)[study] + generator.normal(size=len(study))
    score = noise / np.sqrt(2) + SEPARATION * (label - 0.5)
    logits = scale * (SEPARATION * score + logit(positive) + shift)
    names = study.astype(str)
    return Cases(np.full(len(study), 0.5), logits, label, names, names, np.arange(len(study)))


def measure(cases: Cases) -> dict[str, float]:
    found = bootstrap.compute_weighted_metrics(cases, bootstrap.count_each_once(cases), 0.5)
    return {name: float(found[name][0]) for name in ("ece", "brier")}


def test_class_weights_move_the_mean_probability_and_an_intercept_brings_it_back():
    """With 15 % positives, weights that balance the classes add log(0.85 / 0.15) to every logit."""
    shift = np.log(0.85 / 0.15)
    point = calibration.fit(draw(400, 1, positive=0.15, shift=shift))
    fresh = draw(20_000, 2, positive=0.15, shift=shift)
    temperature_alone = Scaling(fit_scaling.fit_temperature(fresh.logit, fresh.label))
    before, after = (calibration.apply(line, fresh) for line in (temperature_alone, point.scaling))
    assert point.records["image"]["method"] == "platt"
    assert before.probability.mean() > 0.25 and measure(before)["ece"] > 0.12
    assert after.probability.mean() == pytest.approx(fresh.label.mean(), abs=0.03)
    assert measure(after)["ece"] < 0.04


def test_the_threshold_moves_with_the_intercept():
    """The same images are called positive, whatever is added to all logits."""
    plain, shifted = (draw(300, 3, positive=0.3, shift=shift) for shift in (0.0, 1.5))
    called = []
    for cases in (plain, shifted):
        point = calibration.fit(cases, "accuracy")
        line = dataclasses.replace(point.scaling)
        called.append(line.compute_probability(cases.logit) >= point.threshold)
    assert np.mean(called[0] != called[1]) < 0.02


@pytest.mark.parametrize("shift, scale", [(0.0, 2.0), (1.0, 1.0), (-2.0, 0.7)])
def test_many_cases_find_the_true_line(shift, scale):
    cases = draw(20_000, 4, positive=0.3, shift=shift, scale=scale)
    found, record = fit_scaling.choose(cases, Scaling())
    assert found.temperature == pytest.approx(scale, rel=0.05)
    assert found.intercept == pytest.approx(-shift, abs=0.08)
    assert record["cases"] == 20_000


def test_platt_is_logistic_regression():
    """Platt's targets hardly differ from the labels where there are many cases."""
    cases = draw(3000, 5, shift=0.7, scale=1.6)
    slope, intercept = fit_scaling.fit_platt(cases.logit, cases.label)
    fitted = sklearn.linear_model.LogisticRegression(C=1e9).fit(cases.logit[:, None], cases.label)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=0.01)
    assert intercept == pytest.approx(fitted.intercept_[0], abs=0.01)


def test_the_figures_are_of_cases_that_the_fit_has_not_seen():
    """With labels that have nothing to do with the logits, no method seems to help."""
    generator = np.random.default_rng(6)
    cases = dataclasses.replace(
        draw(60, 6), logit=generator.normal(size=60) * 0.1, label=generator.permutation(60) % 2
    )
    _, record = fit_scaling.choose(cases, Scaling())
    losses = [figures["log_loss"] for figures in record["methods"].values()]
    assert min(losses) > np.log(2) - 0.02


@pytest.mark.parametrize(
    "label", [[1] * 40, [0, 1, 0, 1], [1] + [0] * 30], ids=["one class", "few", "one positive"]
)
def test_too_little_to_fit_on_keeps_what_there_is(label):
    names = [str(k) for k in range(len(label))]
    cases = Cases(np.full(len(label), 0.5), np.arange(len(label)), label, names, names, names)
    line = Scaling(1.3, 0.2)
    assert fit_scaling.choose(cases, line) == (line, {})


def test_studies_have_a_scale_of_their_own():
    """A mean of several logits says more than one, so that the images' scale is too cautious."""
    point = calibration.fit(draw(400, 7, scale=1.4, images=4))
    fresh = draw(20_000, 8, scale=1.4, images=4)
    studies = aggregate_by_study(fresh, point.effective_study_scaling)
    images = calibration.apply(point.scaling, fresh)
    mean = np.bincount(fresh.study_id.astype(int), images.probability) / np.bincount(
        fresh.study_id.astype(int)
    )
    order = np.argsort(studies.study_id.astype(int))
    before = dataclasses.replace(studies.take(order), probability=mean)
    assert measure(studies)["ece"] < measure(before)["ece"]
    assert measure(studies)["brier"] < measure(before)["brier"]


def test_what_was_chosen_is_said_with_what_it_gained():
    point = calibration.fit(draw(200, 9, positive=0.2, shift=1.4, images=2))
    image, study = fit_scaling.describe(point.records)
    figures = point.records["image"]["methods"]
    assert image.startswith("Calibration per image: Platt scaling, chosen by cross-fitting on ")
    for method, words in (("unchanged", "no calibration"), ("platt", "Platt scaling")):
        measured = [figures[method][key] for key in ("log_loss", "brier", "ece")]
        assert ", ".join(f"{value:.3f}" for value in measured) + f" with {words}" in image
    assert "with the images' calibration" in study
    assert fit_scaling.describe({"image": {}, "study": {}}) == []
