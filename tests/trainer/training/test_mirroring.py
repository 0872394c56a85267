"""The mirror image is scored too where it gains enough on held-out images, or where it must."""

import numpy as np
import pytest
import sklearn.metrics

from trainer.training import mirroring
from trainer.training.mirroring import Mirroring

LABELS = np.tile([0, 1], 100)


def draw_logits(seed: int, gain: float) -> dict[bool, np.ndarray]:
    """Draw logits with and without the mirror image, the former better by `gain`."""
    alone = np.random.default_rng(seed).normal(size=len(LABELS)) + LABELS
    return {False: alone, True: alone + gain * LABELS}


@pytest.mark.parametrize(
    ("setting", "candidates"), [(None, (False, True)), (True, (True,)), (False, (False,))]
)
def test_a_setting_leaves_one_candidate(setting, candidates):
    assert mirroring.list_candidates(setting) == candidates


@pytest.mark.parametrize("setting", [True, False])
def test_what_must_be_is_chosen_unmeasured(setting):
    assert mirroring.choose(LABELS, {setting: np.zeros(200)}) == Mirroring(setting, None)


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, True), (0.001, False), (-0.5, False)])
def test_the_gain_on_held_out_images_decides(caplog, gain, chosen):
    logits = draw_logits(3, gain)
    with caplog.at_level("INFO", logger="absl"):
        found = mirroring.choose(LABELS, logits)
    alone, both = (sklearn.metrics.roc_auc_score(LABELS, logits[m]) for m in (False, True))
    assert found == Mirroring(chosen, pytest.approx(both - alone))
    assert f"from {alone:.4f} to {both:.4f}" in caplog.text
    assert ("takes twice as long" in caplog.text) == chosen


@pytest.mark.parametrize("labels", [LABELS[:8], np.zeros(200, int), LABELS[:0]])
def test_too_few_images_and_one_class_decide_nothing(labels):
    logits = {mirrored: values[: len(labels)] for mirrored, values in draw_logits(3, 9.0).items()}
    assert mirroring.choose(labels, logits) == Mirroring(False, None)
