"""Flipped copies are scored too where they gain enough on held-out images, or where they must."""

import numpy as np
import pytest
import sklearn.metrics

from tests.support import small_recipe
from trainer.training import flip_choice
from trainer.training.flip_choice import Choice

LABELS = np.tile([0, 1], 100)


def draw_logits(seed: int, *gains: float) -> dict[str, np.ndarray]:
    """Draw logits by candidate: of the image alone, and better by each of the gains."""
    alone = np.random.default_rng(seed).normal(size=len(LABELS)) + LABELS
    names = ("none", "horizontal", "both")
    return dict(zip(names, [alone, *(alone + gain * LABELS for gain in gains)], strict=False))


@pytest.mark.parametrize(
    ("setting", "upside_down", "candidates"),
    [
        ("auto", True, ("none", "horizontal", "both")),
        ("auto", False, ("none", "horizontal")),
        ("none", True, ("none",)),
        ("horizontal", True, ("horizontal",)),
        ("both", False, ("both",)),
    ],
)
def test_a_setting_leaves_one_candidate_and_auto_what_was_learnt(setting, upside_down, candidates):
    settings = small_recipe.get_config()
    settings.test_time_flips, settings.augmentation.vertical_flip = setting, upside_down
    assert flip_choice.list_candidates(settings) == candidates


@pytest.mark.parametrize("setting", ["none", "horizontal", "both"])
def test_what_must_be_is_chosen_unmeasured(setting):
    assert flip_choice.choose(LABELS, {setting: np.zeros(200)}) == Choice(setting)


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ((0.5,), "horizontal"),
        ((0.001,), "none"),
        ((-0.5,), "none"),
        ((0.5, 1.0), "both"),
        ((0.5, 0.501), "horizontal"),
        ((-0.1, 0.5), "both"),
        ((0.5, -0.5), "horizontal"),
    ],
)
def test_the_gain_on_held_out_images_decides(caplog, gains, chosen):
    logits = draw_logits(3, *gains)
    with caplog.at_level("INFO", logger="absl"):
        found = flip_choice.choose(LABELS, logits)
    auroc = {name: sklearn.metrics.roc_auc_score(LABELS, logit) for name, logit in logits.items()}
    expected = {name: value - auroc["none"] for name, value in auroc.items() if name != "none"}
    assert (found.flips, found.gains) == (chosen, pytest.approx(expected))
    assert ", ".join(f"{name} {value:.4f}" for name, value in auroc.items()) in caplog.text
    times = {"none": 1, "horizontal": 2, "both": 4}[chosen]
    assert f"with flips: {chosen}, which takes {times} times" in caplog.text


@pytest.mark.parametrize("labels", [LABELS[:8], np.zeros(200, int), LABELS[:0]])
def test_too_few_images_and_one_class_decide_nothing(labels):
    logits = {name: values[: len(labels)] for name, values in draw_logits(3, 9.0, 9.0).items()}
    assert flip_choice.choose(labels, logits) == Choice("none")
