"""Decide whether an artifact scores the mirror image too, which takes twice the time of scoring."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import sklearn.metrics
from absl import logging

from trainer.evaluation import fit_scaling

MIN_GAIN = 0.005
"""Gain in AUROC on held-out images from which the mirror image is scored too."""


@dataclasses.dataclass(frozen=True)
class Mirroring:
    """Says whether the mirror image is scored too, and what that gains.

    Attributes:
      gain: the AUROC of the held-out images with the mean of both logits, minus that without; None
        where it was not measured.
    """

    mirrored: bool
    gain: float | None = None


def list_candidates(setting: bool | None) -> tuple[bool, ...]:
    """Return with which values of `mirrored` held-out images are scored, the simpler one first.

    Args:
      setting: `test_time_flip`; None leaves the decision to `choose`.
    """
    return (False, True) if setting is None else (setting,)


def choose(labels: np.ndarray, logits: Mapping[bool, np.ndarray]) -> Mirroring:
    """Choose between scoring the image alone and scoring its mirror image too.

    Args:
      labels: int [N] of the held-out images.
      logits: float [N] of these images by each value of `mirrored` of `list_candidates`.

    Returns:
      The only candidate, or the mirror image where its gain is `MIN_GAIN` or more. Nothing is
      measured on too few images or on one class, see `fit_scaling.can_be_fitted`.
    """
    if len(logits) == 1:
        (only,) = logits
        return Mirroring(only)
    if not fit_scaling.can_be_fitted(labels):
        return Mirroring(False)
    alone, both = (
        float(sklearn.metrics.roc_auc_score(labels, logits[mirrored])) for mirrored in (False, True)
    )
    chosen = Mirroring(both - alone >= MIN_GAIN, both - alone)
    logging.info(
        "Scoring the mirror image too changes the AUROC of held-out images from %.4f to %.4f:"
        " the artifact %s.",
        alone,
        both,
        "scores it, which takes twice as long" if chosen.mirrored else "does without it",
    )
    return chosen
