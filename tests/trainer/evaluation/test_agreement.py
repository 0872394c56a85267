"""Engines against the reference: numbers by hand, and cases whose answer is known."""

import numpy as np
import pytest
import scipy.special

from trainer.evaluation import agreement
from trainer.evaluation.cases import Cases

MAPS = np.arange(12, dtype=np.float32).reshape(3, 2, 2)


def label(probability: float) -> str:
    return "positive" if probability >= 0.5 else "negative"


def answer(probability, maps=None) -> dict[str, np.ndarray]:
    """Return the outputs of an engine: probabilities, their logits, and maps."""
    probability = np.asarray(probability, np.float32)
    maps = np.arange(4 * len(probability)).reshape(-1, 2, 2) if maps is None else maps
    return {"probability": probability, "logit": scipy.special.logit(probability), "cam": maps}


def patients(truth) -> Cases:
    """One image of each patient."""
    truth = np.asarray(truth)
    names = np.array([f"{n:04d}" for n in range(len(truth))])
    return Cases(np.full(len(truth), 0.5), np.zeros(len(truth)), truth, names, names, names)


def many(images: int = 400, seed: int = 5) -> tuple[dict[str, np.ndarray], Cases]:
    """Return a reference of AUROC near 0.9, and the labels."""
    rng = np.random.default_rng(seed)
    truth = np.arange(images) % 2
    logit = rng.normal(np.where(truth, 1.0, -1.0) * 1.8, 2.0)
    return answer(scipy.special.expit(logit)), patients(truth)


def test_differences_by_hand():
    found = agreement.compare(
        answer([0.2, 0.48, 0.9], MAPS), answer([0.2, 0.52, 0.95], 3 * MAPS + 1), label, 0.5
    )
    assert found["probability_mean"] == pytest.approx(0.03, abs=1e-6)
    assert found["probability_largest"] == pytest.approx(0.05, abs=1e-6)
    assert found["labels_changed"] == pytest.approx(1 / 3)
    assert found["cam_correlation"] == pytest.approx(1, abs=1e-6)
    moved = scipy.special.logit([0.52, 0.95]) - scipy.special.logit([0.48, 0.9])
    spread = scipy.special.logit([0.2, 0.48, 0.9]).std()
    assert found["logit_difference"] == pytest.approx(np.sqrt((moved**2).sum() / 3) / spread)


@pytest.mark.parametrize("images", [3, 20, 100])
def test_the_bound_of_no_changed_label_is_that_of_the_binomial(images):
    same = answer(np.linspace(0.1, 0.9, images))
    found = agreement.compare(same, same, label, 0.5)
    # The share under which seeing none of `images` has probability 2.5 %.
    assert found["labels_changed_high"] == pytest.approx(1 - 0.025 ** (1 / images))


@pytest.mark.parametrize("labels", ["unknown", "known", "of_one_class"])
def test_identical_answers_are_accepted_whatever_is_known(labels):
    same, known = many()
    negatives = patients(np.zeros(len(known), int))
    told = {"unknown": None, "known": known, "of_one_class": negatives}[labels]
    found = agreement.compare(same, same, label, 0.5, told)
    assert found["within_tolerance"] and found["verdict"] == "close on every image"


def test_one_image_that_moves_far_is_no_veto():
    reference, known = many()
    moved = np.array(reference["probability"])
    surest = moved.argmax()
    moved[surest] -= 0.4
    found = agreement.compare(reference, answer(moved, reference["cam"]), label, 0.5, known)
    assert found["probability_largest"] == pytest.approx(0.4, abs=1e-6)
    assert found["within_tolerance"] and found["verdict"] == "not inferior"
    assert found["auroc"]["low"] <= found["auroc"]["difference"] <= found["auroc"]["high"]


def test_without_labels_a_large_difference_is_refused_and_the_verdict_says_what_would_help():
    reference, _ = many()
    moved = np.array(reference["probability"])
    moved[moved.argmax()] -= 0.4
    found = agreement.compare(reference, answer(moved, reference["cam"]), label, 0.5)
    assert not found["within_tolerance"] and "auroc" not in found
    assert "labelled images" in found["verdict"]


def test_noise_that_costs_rank_and_decisions_is_refused():
    reference, known = many()
    noise = np.random.default_rng(1).normal(0, 3.0, len(known))
    worse = answer(scipy.special.expit(reference["logit"] + noise), reference["cam"])
    found = agreement.compare(reference, worse, label, 0.5, known)
    assert found["auroc"]["difference"] < -agreement.MARGINS["auroc"]
    assert not found["within_tolerance"]


def test_a_shift_of_all_logits_keeps_the_rank_but_not_the_calibration():
    reference, known = many()
    shifted = answer(scipy.special.expit(reference["logit"] + 1.0), reference["cam"])
    # No label changes where the threshold lies far from every image.
    found = agreement.compare(reference, shifted, lambda _: "positive", 0.0001, known)
    assert found["auroc"]["difference"] == pytest.approx(0, abs=1e-4)
    assert not found["within_tolerance"] and "calibration error" in found["verdict"]


def test_few_patients_cannot_show_that_an_engine_is_not_inferior():
    reference, known = many(images=12)
    probability = np.clip(reference["probability"] + 0.06, 0, 1)
    moved = answer(probability * 0.999 + 0.0005, reference["cam"])
    found = agreement.compare(reference, moved, label, 0.5, known)
    assert not found["within_tolerance"]


def test_maps_that_say_something_else_are_refused_though_all_labels_agree():
    reference, known = many()
    found = agreement.compare(reference, {**reference, "cam": -reference["cam"]}, label, 0.5, known)
    assert found["labels_changed"] == 0
    assert not found["within_tolerance"] and "maps" in found["verdict"]


@pytest.mark.parametrize("output", ["probability", "logit", "cam"])
def test_numbers_that_are_none_are_refused(output):
    reference, known = many()
    broken = {name: np.array(values, np.float32) for name, values in reference.items()}
    broken[output].flat[3] = np.nan
    assert not agreement.compare(reference, broken, label, 0.5, known)["within_tolerance"]


def test_constant_maps_agree_when_they_are_the_same():
    rising, flat = answer([0.2, 0.5, 0.9], MAPS), answer([0.2, 0.5, 0.9], np.zeros_like(MAPS))
    assert agreement.compare(flat, flat, label, 0.5)["cam_correlation"] == 1
    assert agreement.compare(rising, flat, label, 0.5)["cam_correlation"] == 0


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        # One of 20 labels changes, by 0.004.
        ([0.498] + [0.1] * 19, "the share of labels that change is 0.050, at most 0.02 may be"),
        ([0.9] + [0.1] * 19, "the largest difference of probability is 0.100, at most 0.05"),
        ([0.8] + [0.12] * 19, "the mean difference of probability is 0.019, at most 0.01"),
    ],
)
def test_without_labels_the_reason_is_the_limit_that_was_exceeded(probability, said):
    first = 0.502 if probability[0] < 0.5 else 0.8
    found = agreement.compare(answer([first] + [0.1] * 19), answer(probability), label, 0.5)
    assert not found["within_tolerance"] and found["verdict"].startswith(said)
