"""Decide which flipped copies of an image an artifact scores; each takes the time of one image."""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np
import sklearn.metrics
from absl import logging

from trainer.evaluation import fit_scaling
from trainer.network.flips import PASSES, Flips

MIN_GAIN = 0.005
"""Gain in AUROC on held-out images that makes twice the time worth it."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The copies of an image that are scored, and what that gains.

    Attributes:
      gains: the AUROC of the held-out images by each candidate, minus that of the image alone;
        empty where it was not measured.
    """

    flips: Flips
    gains: Mapping[Flips, float] = dataclasses.field(default_factory=dict)


def list_candidates(settings: ml_collections.FrozenConfigDict) -> Sequence[Flips]:
    """Return between which `choose` may choose, the fastest one first.

    `test_time_flips` leaves one of them, or with `auto` all that the network has learnt: images
    upside down only where the augmentation turns them so.
    """
    if settings.test_time_flips != "auto":
        return (settings.test_time_flips,)
    return tuple(PASSES) if settings.augmentation.vertical_flip else ("none", "horizontal")


def choose(labels: np.ndarray, logits: Mapping[Flips, np.ndarray]) -> Choice:
    """Choose by held-out images which copies of an image are scored.

    Args:
      labels: int [N] of the held-out images.
      logits: float [N] of these images by each of `list_candidates`.

    Returns:
      The only candidate, or the last that gains `MIN_GAIN` or more over the one chosen before it.
      Nothing is measured on too few images or on one class, see `fit_scaling.can_be_fitted`.
    """
    fastest, *slower = logits
    if not slower or not fit_scaling.can_be_fitted(labels):
        return Choice(fastest)
    auroc = {
        flips: float(sklearn.metrics.roc_auc_score(labels, logit))
        for flips, logit in logits.items()
    }
    chosen = fastest
    for flips in slower:
        if auroc[flips] - auroc[chosen] >= MIN_GAIN:
            chosen = flips
    logging.info(
        "AUROC of held-out images by the flipped copies that are scored: %s. The artifact scores"
        " with flips: %s, which takes %d times the time of the image alone.",
        ", ".join(f"{flips} {value:.4f}" for flips, value in auroc.items()),
        chosen,
        len(PASSES[chosen]),
    )
    return Choice(chosen, {flips: auroc[flips] - auroc[fastest] for flips in slower})
