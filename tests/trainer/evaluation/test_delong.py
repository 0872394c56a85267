"""DeLong's test equals the direct formulas over all pairs, and finds what it should."""

import numpy as np
import pytest
import scipy.stats

from trainer.evaluation import delong
from trainer.evaluation.cases import Cases

UNKNOWN = {"low": None, "high": None, "p_value": None}


def make_cases(probability, label, patient) -> Cases:
    paths = [f"{k:05d}.png" for k in range(len(label))]
    return Cases(probability, np.zeros(len(label)), label, ["study1"] * len(label), patient, paths)


def draw_pair(seed: int, patients: int, most_images: int, gain: float = 0.0) -> tuple[Cases, Cases]:
    """Draw the scores of two models, rounded so that some are tied.

    Some patients have images of both labels. Images of one patient are alike.
    """
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, most_images + 1, patients))
    label = generator.integers(2, size=patients)[patient]
    label = np.where(generator.random(len(label)) < 0.1, 1 - label, label)
    scores = []
    for slope in (1.0, 1.0 + gain):
        effect, noise = generator.normal(size=patients)[patient], generator.normal(size=len(label))
        scores.append(np.round(1 / (1 + np.exp(-slope * label - effect - noise)), 2))
    a, b = (make_cases(score, label, [f"p{k:04d}" for k in patient]) for score in scores)
    return a, b


def compare_by_all_pairs(a: Cases, b: Cases) -> tuple[float, float]:
    """Return difference and variance by a double loop over pairs (Obuchowski 1997)."""
    positives, negatives = np.flatnonzero(a.label == 1), np.flatnonzero(a.label == 0)
    gain = np.zeros((len(positives), len(negatives)))
    for i, x in enumerate(positives):
        for j, y in enumerate(negatives):
            for sign, cases in ((1, b), (-1, a)):
                p, q = cases.probability[x], cases.probability[y]
                gain[i, j] += sign * (1.0 if p > q else 0.5 if p == q else 0.0)
    difference = gain.mean()
    of_positives, of_negatives = gain.mean(axis=1), gain.mean(axis=0)
    names = sorted(set(a.patient_id))
    sums = np.array(
        [
            (
                sum(
                    of_positives[i] - difference
                    for i, x in enumerate(positives)
                    if a.patient_id[x] == name
                ),
                sum(
                    of_negatives[j] - difference
                    for j, y in enumerate(negatives)
                    if a.patient_id[y] == name
                ),
            )
            for name in names
        ]
    )
    m, n, total = len(positives), len(negatives), len(names)
    with_positive = len(set(a.patient_id[positives]))
    with_negative = len(set(a.patient_id[negatives]))
    s10 = with_positive / ((with_positive - 1) * m) * (sums[:, 0] ** 2).sum()
    s01 = with_negative / ((with_negative - 1) * n) * (sums[:, 1] ** 2).sum()
    s11 = total / (total - 1) * (sums[:, 0] * sums[:, 1]).sum()
    return difference, s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_formula_over_all_pairs_and_patients(seed):
    a, b = draw_pair(seed, patients=20, most_images=4, gain=0.5)
    difference, variance = compare_by_all_pairs(a, b)
    found = delong.compare_auroc(a, b)
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(variance)
    assert (found["low"], found["high"]) == pytest.approx((difference - half, difference + half))
    assert found["p_value"] == pytest.approx(
        2 * scipy.stats.norm.sf(abs(difference) / np.sqrt(variance))
    )


def test_with_one_image_per_patient_it_is_delongs_test():
    a, b = draw_pair(seed=7, patients=40, most_images=1)
    positive = a.label == 1
    # DeLong et al. 1988: covariances of the structural components of both models.
    areas, of_positives, of_negatives = [], [], []
    for cases in (a, b):
        x, y = cases.probability[positive][:, None], cases.probability[~positive][None]
        ranked = (x > y) + 0.5 * (x == y)
        areas.append(ranked.mean())
        of_positives.append(ranked.mean(axis=1))
        of_negatives.append(ranked.mean(axis=0))
    covariance = np.cov(of_positives) / positive.sum() + np.cov(of_negatives) / (~positive).sum()
    contrast = np.array([-1, 1])
    error = np.sqrt(contrast @ covariance @ contrast)
    found = delong.compare_auroc(a, b)
    assert found["high"] - found["low"] == pytest.approx(2 * scipy.stats.norm.ppf(0.975) * error)
    z = abs(areas[1] - areas[0]) / error
    assert found["p_value"] == pytest.approx(2 * scipy.stats.norm.sf(z))


def test_two_equal_models_differ_in_about_one_test_of_twenty():
    pairs = [draw_pair(seed, patients=80, most_images=4) for seed in range(200)]
    found = sum(delong.compare_auroc(a, b)["p_value"] < 0.05 for a, b in pairs)
    assert 2 <= found <= 20


def test_it_is_antisymmetric_and_finds_the_better_model():
    a, b = draw_pair(seed=1, patients=150, most_images=3, gain=1.5)
    forwards, backwards = delong.compare_auroc(a, b), delong.compare_auroc(b, a)
    assert 0 < forwards["low"] < forwards["high"] and forwards["p_value"] < 0.01
    assert (backwards["low"], backwards["high"]) == pytest.approx(
        (-forwards["high"], -forwards["low"])
    )


def test_it_says_nothing_where_nothing_follows():
    a, b = draw_pair(seed=2, patients=4, most_images=4)
    assert delong.compare_auroc(a, b) == UNKNOWN
    a, b = draw_pair(seed=2, patients=40, most_images=2)
    assert delong.compare_auroc(a, a) == UNKNOWN
    one_class = a.label == 0
    assert delong.compare_auroc(a.take(one_class), b.take(one_class)) == UNKNOWN
