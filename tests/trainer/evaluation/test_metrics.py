"""Compare metrics with scikit-learn and hand counts, and the bootstrap with a plain loop."""

import json
import pathlib

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import DataError
from trainer.evaluation import bootstrap, metric_tables, metrics
from trainer.evaluation.cases import Cases, aggregate_by_study, count_confusion
from trainer.evaluation.grouping import OTHERS
from trainer.model_json.scaling import Scaling

ROOT = pathlib.Path(__file__).resolve().parents[3]


def cases(probability, label, patient_id=None, study_id=None, path=None) -> Cases:
    """Cases of which only scores and labels matter: one patient, one study each."""
    count = len(probability)
    probability = np.asarray(probability, float)
    odds = np.clip(probability, 1e-9, 1 - 1e-9)
    return Cases(
        probability=probability,
        logit=np.log(odds / (1 - odds)),
        label=label,
        study_id=["study1"] * count if study_id is None else study_id,
        patient_id=[f"patient{k:05d}" for k in range(count)] if patient_id is None else patient_id,
        path=[f"{k:05d}.png" for k in range(count)] if path is None else path,
    )


def simulated(patients: int, seed: int, separation: float = 2.0, decimals: int = 2) -> Cases:
    """One to four images of one label per patient; scores rounded, so that many are tied."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, 5, size=patients))
    label = generator.integers(2, size=patients)[patient]
    score = generator.normal(size=len(patient)) + separation * (label - 0.5)
    return cases(
        np.round(1 / (1 + np.exp(-score)), decimals), label, [f"patient{p:05d}" for p in patient]
    )


def reference(
    probability: np.ndarray, label: np.ndarray, threshold: float, weight: np.ndarray
) -> dict[str, float]:
    """Compute the metrics with scikit-learn and sample weights; ECE by its definition."""
    called, given = (probability >= threshold).astype(int), {"sample_weight": weight}
    ece = 0.0
    for k in range(10):
        inside = (probability >= k / 10) & ((probability < (k + 1) / 10) | (k == 9))
        if weight[inside].sum():
            gap = np.average(probability[inside], weights=weight[inside]) - np.average(
                label[inside], weights=weight[inside]
            )
            ece += weight[inside].sum() / weight.sum() * abs(gap)
    return {
        "accuracy": sklearn.metrics.accuracy_score(label, called, **given),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(label, called, **given),
        "auroc": sklearn.metrics.roc_auc_score(label, probability, **given),
        "auprc": sklearn.metrics.average_precision_score(label, probability, **given),
        "sensitivity": sklearn.metrics.recall_score(label, called, **given),
        "specificity": sklearn.metrics.recall_score(label, called, pos_label=0, **given),
        "ppv": sklearn.metrics.precision_score(label, called, **given),
        "npv": sklearn.metrics.precision_score(label, called, pos_label=0, **given),
        "f1": sklearn.metrics.f1_score(label, called, **given),
        "kappa": sklearn.metrics.cohen_kappa_score(label, called, **given),
        "brier": sklearn.metrics.brier_score_loss(label, probability, **given),
        "ece": ece,
    }


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.floats(0.3, 0.7),
    decimals=st.sampled_from([1, 2, 6]),
)
def test_weighted_metrics_equal_scikit_learn(seed, threshold, decimals):
    scored = simulated(30, seed, decimals=decimals)
    patient = np.unique(scored.patient_id, return_inverse=True)[1]
    multiplicity = next(bootstrap.draw_multiplicities(30, 3, seed))
    measured = bootstrap.compute_weighted_metrics(scored, multiplicity, threshold)
    for row in range(3):
        weight = multiplicity[row, patient]
        if len(set(scored.label[weight > 0])) < 2:
            continue
        expected = reference(scored.probability, scored.label, threshold, weight)
        for name, value in expected.items():
            if not np.isnan(measured[name][row]):
                assert measured[name][row] == pytest.approx(value, abs=1e-12), name


def test_hand_counted():
    # Threshold 0.5: tp are 0.9 and 0.6, fp is 0.7, fn is 0.4, tn are 0.2 and 0.1. Of 9 pairs, all
    # but (0.6, 0.7) and (0.4, 0.7) are ranked correctly: 7 of 9.
    result = metrics.evaluate(
        cases([0.9, 0.6, 0.4, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0, 0]), 0.5, resamples=10
    )
    value = {name: entry["value"] for name, entry in result["image"].items()}
    assert value["accuracy"] == pytest.approx(4 / 6)
    assert value["sensitivity"] == pytest.approx(2 / 3)
    assert value["specificity"] == pytest.approx(2 / 3)
    assert value["ppv"] == pytest.approx(2 / 3)
    assert value["auroc"] == pytest.approx(7 / 9)
    assert value["auprc"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert value["kappa"] == pytest.approx((4 / 6 - 1 / 2) / (1 / 2))
    assert value["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.49 + 0.04 + 0.01) / 6)
    assert value["ece"] == pytest.approx((0.1 + 0.4 + 0.6 + 0.7 + 0.2 + 0.1) / 6)
    assert result["confusion"]["image"] == {"tp": 2, "fp": 1, "fn": 1, "tn": 2}
    assert result["counts"]["positive_images"] == 3


def test_ties_count_half():
    measured = metrics.evaluate(cases([0.5, 0.5, 0.5, 0.9], [1, 0, 0, 1]), 0.5, resamples=2)[
        "image"
    ]
    assert measured["auroc"]["value"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert measured["auprc"]["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)


def test_a_study_has_the_mean_logit_of_its_images_on_its_own_scale():
    scored = cases(
        [0.2, 0.6, 0.9, 0.1],
        [0, 0, 1, 0],
        patient_id=["a", "a", "a", "b"],
        study_id=["study1", "study1", "study2", "study1"],
    )
    scaling = Scaling(0.5, 0.2)
    per_study = aggregate_by_study(scored, scaling)
    assert per_study.path.tolist() == ["a/study1", "a/study2", "b/study1"]
    # The mean of the log odds of 0.2 and 0.6 is the log of the root of (1/4) (3/2).
    logits = np.array([np.log(0.375) / 2, np.log(9), -np.log(9)])
    np.testing.assert_allclose(per_study.logit, logits)
    np.testing.assert_allclose(per_study.probability, 1 / (1 + np.exp(-logits / 0.5 - 0.2)))
    assert per_study.label.tolist() == [0, 1, 0]
    assert count_confusion(per_study, 0.5) == {"tp": 1, "fp": 0, "fn": 0, "tn": 2}
    assert metrics.evaluate(scored, 0.5, resamples=5)["counts"] == {
        "images": 4, "studies": 3, "patients": 2, "positive_patients": 1, "negative_patients": 2,
        "positive_images": 1, "positive_studies": 1,
    }  # fmt: skip


def test_a_study_of_two_labels_is_refused():
    with pytest.raises(DataError, match="a/study1 has images of both labels"):
        metrics.evaluate(cases([0.2, 0.6], [0, 1], patient_id=["a", "a"]), 0.5)


def test_intervals_equal_a_plain_loop_over_the_same_patients():
    scored = simulated(25, seed=4)
    patients = np.unique(scored.patient_id)
    multiplicity = next(bootstrap.draw_multiplicities(25, 60, seed=7))
    drawn: dict[str, list[float]] = {name: [] for name in metrics.METRICS}
    for row in multiplicity:
        chosen = np.concatenate(
            [
                np.flatnonzero(scored.patient_id == patient)
                for patient, times in zip(patients, row, strict=True)
                for _ in range(int(times))
            ]
        )
        measured = reference(
            scored.probability[chosen], scored.label[chosen], 0.45, np.ones(len(chosen))
        )
        for name, value in measured.items():
            drawn[name].append(value)
    result = metrics.evaluate(scored, 0.45, resamples=60, seed=7)["image"]
    of_class = [len(np.unique(scored.patient_id[scored.label == label])) for label in (0, 1)]
    rests_on = {"sensitivity": of_class[1], "specificity": of_class[0]}
    rests_on |= dict.fromkeys(("auroc", "balanced_accuracy", "auprc", "f1", "kappa"), min(of_class))
    for name, values in drawn.items():
        value = result[name]["value"]
        count = rests_on.get(name, len(patients))
        quantile = scipy.stats.t.ppf(0.975, count - 1)
        if name == "ece":
            below, above = np.quantile(values, [0.025, 0.975])
            excess = np.mean(values) - value
            expected = max(0, 2 * value - above - 2 * excess), max(value, 2 * value - below)
        else:
            lowest = -1 if name == "kappa" else 0
            odds = (value - lowest) / (1 - value)
            error = np.std(values, ddof=0) * np.sqrt(count / (count - 1))
            # The derivative of log odds is the width of the range over both distances to its ends.
            half = quantile * error * (1 - lowest) / ((value - lowest) * (1 - value))
            expected = tuple(
                (o + lowest) / (1 + o) for o in (odds * np.exp(-half), odds * np.exp(half))
            )
        assert (result[name]["low"], result[name]["high"]) == pytest.approx(expected, abs=1e-12), (
            name
        )


def test_multiplicities_do_not_depend_on_the_block_size():
    whole = next(bootstrap.draw_multiplicities(17, 50, seed=3))
    assert whole.sum(axis=1).tolist() == [17] * 50
    np.testing.assert_array_equal(
        np.concatenate(list(bootstrap.draw_multiplicities(17, 50, seed=3, rows=7))), whole
    )


def test_patients_not_images_are_resampled():
    # Ten patients with 30 identical images each: as uncertain as ten images, not as 300.
    generator = np.random.default_rng(0)
    probability, label = generator.random(10), np.tile([0, 1], 5)
    few = metrics.evaluate(cases(probability, label), 0.5)["image"]["accuracy"]
    patient = np.repeat([f"patient{k:05d}" for k in range(10)], 30)
    many = metrics.evaluate(cases(np.repeat(probability, 30), np.repeat(label, 30), patient), 0.5)[
        "image"
    ]["accuracy"]
    assert many == pytest.approx(few)


def test_the_coverage_that_is_stated_is_that_of_the_benchmark():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- coverage -->\n")[1].split("\n<!-- /coverage -->")[0]
    (_, *columns), _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    covered = {
        (column, name, level): float(value)
        for name, *cells in rows
        for column, cell in zip(columns, cells, strict=True)
        for level, value in zip(("image", "study"), cell.split("/"), strict=True)
    }
    (sentence,) = metric_tables.describe_coverage({"counts": {"patients": 30}})
    for shares, exception, stated in [
        (("50 %", "20 %"), "ece", "91 % of the time or more (calibration error per study: 69 %)"),
        (("5 %",), "specificity", "83 % or more (specificity per study: 54 %)"),
    ]:
        of_few = {k: v for k, v in covered.items() if k[0] in [f"{n}, 30 patients" for n in shares]}
        worst = min(v for k, v in of_few.items() if k[1:] == (exception, "study"))
        others = min(v for k, v in of_few.items() if k[1:] != (exception, "study"))
        assert stated in sentence
        assert f"{int(100 * others)} %" in stated and f" {worst:.0%}".replace("%", " %") in stated
    of_more = {k: v for k, v in covered.items() if not k[0].endswith(", 30 patients")}
    assert metric_tables.ENOUGH_PATIENTS == 90
    below = {key for key, value in of_more.items() if value < 0.9}
    assert below == {("5 %, 90 patients", "specificity", "study")}


@pytest.mark.parametrize("patients, least", [(30, 0.92), (90, 0.93)])
def test_coverage_of_the_interval_of_auroc(patients, least):
    """With an AUROC of 0.921, percentile intervals of 30 patients cover 0.88."""
    truth = scipy.stats.norm.cdf(2 / np.sqrt(2))
    held = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        label = np.tile([0, 1], patients // 2)
        score = generator.normal(size=patients) + 2 * (label - 0.5)
        scored = cases(1 / (1 + np.exp(-score)), label)
        drawn = [
            bootstrap.compute_weighted_metrics(scored, rows, 0.5)["auroc"]
            for rows in bootstrap.draw_blocks(scored, 400, seed)
        ]
        value = bootstrap.compute_weighted_metrics(scored, np.ones((1, patients)), 0.5)["auroc"][0]
        low, high = bootstrap.compute_interval(np.concatenate(drawn), value, patients)
        held.append(low is not None and low <= truth <= high)
    assert np.mean(held) >= least


def test_few_patients_come_with_a_sentence_on_what_their_intervals_cover():
    result = metrics.evaluate(simulated(30, seed=0), 0.5, resamples=50)
    lines = metric_tables.format_table(result).splitlines()
    assert any(line.startswith("with only 30 patients these 95 % intervals are") for line in lines)


SMALL = "this set of images is too small to tell how good this network is"


@pytest.mark.parametrize(
    ("auroc", "rarer", "said"),
    [
        ((1.0, None, None), 4, (SMALL, "positive): the AUROC has no interval")),
        ((1.0, None, None), 60, None),
        ((0.7, 0.4, 0.9), 60, (SMALL, "between 0.40 and 0.90 fits it, chance (0.5) among them")),
        ((0.8, 0.6, 0.9), 60, (SMALL, "positive): any AUROC between 0.60 and 0.90 fits it")),
        ((0.85, 0.8, 0.9), 60, None),
        ((0.51, 0.48, 0.54), 60, ("no better than chance", "between 0.48 and 0.54 fits")),
        ((None, None, None), 0, ("holds one class only", "so that the AUROC is undefined")),
    ],
)
def test_what_the_images_cannot_tell_is_said_in_the_terminal(auroc, rarer, said):
    result = metrics.evaluate(simulated(120, seed=0), 0.5, resamples=50)
    result["image"]["auroc"] |= dict(zip(("value", "low", "high"), auroc, strict=True))
    result["counts"] |= {"positive_patients": rarer, "negative_patients": 60}
    last = metric_tables.format_table(result).splitlines()[-1]
    if said:
        assert said[0] in last and last.endswith(said[1])
    else:
        assert last.startswith("95 % intervals from resampling patients")


def test_where_a_class_is_called_alike_balanced_accuracy_has_no_interval():
    """Of four found of four, the sensitivity may be 0.4 (Clopper and Pearson)."""
    label = (np.arange(300) < 10).astype(int)
    random = np.random.default_rng(0)
    scored = cases(np.where(label == 1, 0.9, random.uniform(0, 0.6, 300)), label)
    found = metrics.evaluate(scored, 0.5, resamples=50)["image"]
    assert found["sensitivity"]["value"] == 1.0 and found["specificity"]["low"] is not None
    assert found["balanced_accuracy"]["low"] is None


def test_a_calibration_error_has_no_interval_beyond_1():
    scored = cases([0.99] * 10, [0] * 8 + [1] * 2)
    found = metrics.evaluate(scored, 0.5, resamples=200)["image"]["ece"]
    assert found["value"] <= found["high"] <= 1.0


@pytest.mark.parametrize(
    ("p", "shown"), [(None, ""), (0.01, "0.010"), (0.001, "0.001"), (8e-247, "<0.001")]
)
def test_no_p_value_reads_as_zero(p, shown):
    assert metric_tables.format_p_value(p) == shown


@pytest.mark.parametrize(
    ("label", "undefined"),
    [
        (1, {"auroc", "auprc", "balanced_accuracy", "specificity", "kappa"}),
        (0, {"auroc", "auprc", "balanced_accuracy", "sensitivity", "kappa"}),
    ],
)
def test_one_class_gives_null_where_undefined_and_the_rest_all_the_same(label, undefined):
    result = metrics.evaluate(cases([0.2, 0.8, 0.9, 0.4], [label] * 4), 0.5, resamples=50)
    none = {name for name, entry in result["image"].items() if entry["value"] is None}
    assert none == undefined
    assert all(
        result["image"][name] == {"value": None, "low": None, "high": None} for name in undefined
    )
    assert result["image"]["accuracy"]["value"] == pytest.approx(0.5)
    json.dumps(result, allow_nan=False)
    assert "undefined" in metric_tables.format_table(result)


def test_one_image():
    result = metrics.evaluate(cases([0.8], [1]), 0.5)
    assert result["image"]["accuracy"] == {"value": 1.0, "low": None, "high": None}
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("probability", "patients"),
    [([0.1, 0.9] * 2, 4), ([0.1, 0.9] * 20, 40), ([0.1, 0.9, 0.6] * 10, 2)],
)
def test_no_interval_where_resampling_tells_nothing(probability, patients):
    """If all calls are correct, or patients few, an interval from 1 to 1 would promise too much."""
    label = (np.asarray(probability) > 0.8).astype(int)
    names = [f"patient{k % patients}" for k in range(len(label))]
    studies = [f"study{k}" for k in range(len(label))]
    result = metrics.evaluate(cases(probability, label, names, studies), 0.5, resamples=200)
    assert all(
        (result[level]["accuracy"]["low"], result[level]["accuracy"]["high"]) == (None, None)
        for level in ("image", "study")
    )
    assert metric_tables.NO_INTERVAL in metric_tables.format_table(result)
    shifted = metrics.compare(
        cases(1 - np.asarray(probability), label), cases(probability, label), resamples=200
    )
    assert shifted["image"]["accuracy"]["difference"] is not None
    assert metric_tables.NO_INTERVAL in metric_tables.format_comparison(shifted)


def test_wilsons_interval_by_hand():
    low, high = bootstrap.compute_wilson_interval(np.array([0.5, 1.0, 0.0]), np.array([10, 10, 10]))
    z2 = 1.959964**2
    np.testing.assert_allclose(low, [0.236593, 10 / (10 + z2), 0], atol=1e-6)
    np.testing.assert_allclose(high, [0.763407, 1, z2 / (10 + z2)], atol=1e-6)


def test_the_calibration_error_of_a_calibrated_model_is_not_zero():
    """As docs/evaluation.md says, `ece` is about 0.06 at the size of MURA's test split."""
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        label = generator.integers(2, size=288)
        score = generator.normal(size=288) + 2.087 * (label - 0.5)
        scored = cases(1 / (1 + np.exp(-2.087 * score)), label)
        found.append(metrics.evaluate(scored, 0.5, resamples=200)["image"]["ece"])
    value, low = (np.mean([ece[key] for ece in found]) for key in ("value", "low"))
    assert 0.04 < value < 0.07 and low < 0.02


def test_the_difference_of_calibration_errors_is_in_the_middle_of_its_resamples():
    generator = np.random.default_rng(0)
    label = generator.integers(2, size=120)
    score = 2.087 * (generator.normal(size=120) + 2.087 * (label - 0.5))
    good, overconfident = (cases(1 / (1 + np.exp(-factor * score)), label) for factor in (1, 3))
    row = metrics.compare(overconfident, good, resamples=1000)["image"]["ece"]
    assert row["difference"] == pytest.approx((row["low"] + row["high"]) / 2, abs=0.01)


def test_band_reports_how_many_are_called_and_how_well():
    result = metrics.evaluate(
        cases([0.1, 0.45, 0.55, 0.9], [0, 1, 0, 1]), 0.5, band=(0.45, 0.6), resamples=20
    )["image"]
    assert result["coverage"]["value"] == 0.5
    assert result["called_accuracy"]["value"] == 1.0
    assert result["accuracy"]["value"] == 0.5


def test_table_shows_value_and_interval():
    assert (
        metric_tables.format_interval({"value": 0.8841, "low": 0.846, "high": 0.9207})
        == "0.884 (0.846 to 0.921)"
    )
    result = metrics.evaluate(simulated(90, seed=0), 0.5, resamples=50)
    lines = metric_tables.format_table(result).splitlines()
    row = next(line for line in lines if line.startswith("auroc"))
    assert metric_tables.format_interval(result["image"]["auroc"]) in row
    assert metric_tables.format_interval(result["study"]["auroc"]) in row
    assert "90 patients" in lines[-2]


def test_slices_equal_the_metrics_of_the_subset():
    scored = simulated(60, seed=5)
    mode = np.where(np.arange(len(scored)) % 3 == 0, "rgb", "grey")
    table = metrics.evaluate_slices(scored, {"source_mode": mode.tolist()}, 0.5, resamples=30)[
        "source_mode"
    ]
    assert set(table) == {"grey", "rgb"}
    alone = metrics.evaluate(scored.take(mode == "rgb"), 0.5, resamples=30)["image"]
    assert {name: table["rgb"][name] for name in ("accuracy", "auroc", "kappa")} == {
        name: alone[name] for name in ("accuracy", "auroc", "kappa")
    }
    assert table["rgb"]["images"] + table["grey"]["images"] == len(scored)


def test_slices_cut_numbers_at_quartiles_and_gather_rare_text():
    scored = cases(np.linspace(0.1, 0.9, 40), np.tile([0, 1], 20))
    columns = {
        "width": [str(k) for k in range(40)],
        "site": [f"site{k % 10}" for k in range(40)],
        "same": ["x"] * 40,
    }
    table = metrics.evaluate_slices(scored, columns, 0.5, resamples=10)
    assert {name: row["images"] for name, row in table["width"].items()} == {
        "0 to 9": 10, "10 to 19": 10, "20 to 29": 10, "30 to 39": 10,
    }  # fmt: skip
    assert len(table["site"]) == 9
    assert table["site"][OTHERS]["images"] == 8
    assert "same" not in table
    width, site = metric_tables.format_slice_tables(table)
    assert (width.split()[0], site.split()[0]) == ("width", "site")
    row = table["width"]["0 to 9"]
    assert next(line for line in width.splitlines() if "0 to 9 " in line).endswith(
        metric_tables.format_interval(row["auroc"])
    )


def test_compare_finds_a_difference_whatever_the_order():
    worse, better = simulated(150, seed=6, separation=1.0), simulated(150, seed=6, separation=3.0)
    shuffled = better.take(np.random.default_rng(0).permutation(len(better)))
    row = metrics.compare(worse, shuffled, resamples=500)["image"]["auroc"]
    assert row["difference"] == pytest.approx(row["b"] - row["a"])
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["p_value"] < 0.01
    # For as many patients, DeLong's test and the bootstrap agree.
    assert row["delong"]["p_value"] < 0.01
    assert row["delong"]["low"] == pytest.approx(row["low"], abs=0.01)
    assert row["delong"]["high"] == pytest.approx(row["high"], abs=0.01)
    backwards = metrics.compare(shuffled, worse, resamples=500)["image"]["auroc"]
    assert (backwards["low"], backwards["high"]) == pytest.approx((-row["high"], -row["low"]))


def test_compare_finds_nothing_where_there_is_nothing():
    same = simulated(80, seed=8)
    row = metrics.compare(same, same, resamples=100)["study"]["kappa"]
    assert row["difference"] == 0 and row["low"] is row["high"] is row["p_value"] is None
    # Two models of one quality: about 5 % of the intervals exclude zero.
    found = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        label = np.tile([0, 1], 75)
        a, b = (1 / (1 + np.exp(-generator.normal(size=150) - label)) for _ in range(2))
        found += (
            metrics.compare(cases(a, label), cases(b, label), resamples=200)["image"]["auroc"][
                "p_value"
            ]
            < 0.05
        )
    assert found <= 6


def test_compare_refuses_other_images_and_other_labels():
    a = cases([0.1, 0.9], [0, 1])
    with pytest.raises(DataError, match="same images"):
        metrics.compare(a, cases([0.1, 0.9], [0, 1], path=["00000.png", "x.png"]))
    with pytest.raises(DataError, match="disagree on the label"):
        metrics.compare(a, cases([0.1, 0.9], [1, 1]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probability": [0.5]}, "one length"),
        ({"probability": [0.5, 1.5]}, "probabilities in"),
        ({"probability": [0.5, float("nan")]}, "probabilities in"),
        ({"logit": [0.0, float("inf")]}, "finite logits"),
        ({"label": [0, 2]}, "labels must be 0 or 1, got \\[2"),
        ({"label": [0, 0.4]}, "labels must be 0 or 1, got \\[0.4"),
        ({"label": [1, float("nan")]}, "labels must be 0 or 1"),
        ({"path": ["a", "a"]}, "twice"),
    ],
)
def test_bad_scores_are_refused(fields, message):
    good = {
        "probability": [0.5, 0.5],
        "logit": [0.0, 0.0],
        "label": [0, 1],
        "study_id": ["s", "s"],
        "patient_id": ["a", "b"],
    }
    with pytest.raises(DataError, match=message):
        Cases(**{**good, "path": ["a", "b"], **fields})


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(DataError, match="no case"):
        metrics.evaluate(cases([], []), 0.5)
