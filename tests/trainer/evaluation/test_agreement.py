"""How far two engines agree, against numbers by hand."""

import numpy as np
import pytest

from trainer.evaluation import agreement

MAPS = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
REFERENCE = {"probability": np.array([0.2, 0.48, 0.9], np.float32), "cam": MAPS}
TRUTH = np.array([0, 1, 1])


def label(probability: float) -> str:
    return "positive" if probability >= 0.5 else "negative"


def test_differences_by_hand():
    outputs = {"probability": np.array([0.2, 0.52, 0.95], np.float32), "cam": 3 * MAPS + 1}
    found = agreement.compare(REFERENCE, outputs, label, TRUTH)
    assert found["probability_mean"] == pytest.approx(0.03, abs=1e-6)
    assert found["probability_largest"] == pytest.approx(0.05, abs=1e-6)
    assert found["labels_changed"] == pytest.approx(1 / 3)
    assert found["auroc_change"] == 0
    assert found["cam_correlation"] == pytest.approx(1, abs=1e-6)


def test_an_order_that_turns_over_changes_the_auroc():
    outputs = {"probability": np.array([0.6, 0.48, 0.9], np.float32), "cam": -MAPS}
    found = agreement.compare(REFERENCE, outputs, label, TRUTH)
    assert found["auroc_change"] == pytest.approx(-0.5)
    assert found["cam_correlation"] == pytest.approx(-1, abs=1e-6)
    assert not agreement.is_within_tolerance(found)


@pytest.mark.parametrize("truth", [None, np.zeros(3, int)], ids=["unknown", "one class"])
def test_without_both_classes_there_is_no_auroc(truth):
    found = agreement.compare(REFERENCE, REFERENCE, label, truth)
    assert set(agreement.TOLERANCE) - set(found) == {"auroc_change"}
    assert agreement.is_within_tolerance(found)


@pytest.mark.parametrize("name", agreement.TOLERANCE)
def test_each_limit_counts(name):
    good = {
        "probability_mean": 0.0,
        "probability_largest": 0.0,
        "labels_changed": 0.0,
        "auroc_change": 0.0,
        "cam_correlation": 1.0,
    }
    step = -1e-6 if name == "cam_correlation" else 1e-6
    assert agreement.is_within_tolerance(good | {name: agreement.TOLERANCE[name]})
    assert not agreement.is_within_tolerance(good | {name: agreement.TOLERANCE[name] + step})
    assert not agreement.is_within_tolerance(good | {name: float("nan")})


def test_an_auroc_that_rises_too_much_is_no_agreement():
    good = {
        "probability_mean": 0.0,
        "probability_largest": 0.0,
        "labels_changed": 0.0,
        "cam_correlation": 1.0,
    }
    assert not agreement.is_within_tolerance(good | {"auroc_change": 0.01})
    assert not agreement.is_within_tolerance(good | {"auroc_change": -0.01})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_no_agreement(value):
    outputs = {"probability": np.array([0.2, value, 0.9], np.float32), "cam": MAPS}
    assert not agreement.is_within_tolerance(agreement.compare(REFERENCE, outputs, label, TRUTH))


def test_constant_maps_agree_when_they_are_the_same():
    flat = {"probability": REFERENCE["probability"], "cam": np.zeros_like(MAPS)}
    assert agreement.compare(flat, flat, label)["cam_correlation"] == 1
    assert agreement.compare(REFERENCE, flat, label)["cam_correlation"] == 0
