"""Describe what is published: trained networks, their scores of unseen images, their origin."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.dataset.prepared_split import Split
from trainer.evaluation import evaluate
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases
from trainer.model_json.scaling import IDENTITY, Scaling
from trainer.network.serving import Network


@dataclasses.dataclass(frozen=True)
class Scored:
    """A split and the logits, float [N], that the trained network gives for its images."""

    split: Split
    logit: np.ndarray

    def compute_cases(
        self,
        scaling: Scaling = IDENTITY,
    ) -> Cases:
        """Return the images as cases with the probability of `scaling`."""
        return evaluate.make_cases(self.split, self.logit, scaling)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Says where the weights of a network come from.

    Attributes:
      recipe: name of the recipe; empty where it has none.
      weights: what training started from: `imagenet`, `none`, or the name of a file or artifact.
      seed: seed of the run.
    """

    recipe: str
    weights: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and the images that it was made with.

    Attributes:
      network: its weights are exported.
      train: the images that the weights were fitted to.
      held_out: scored images that the weights were not fitted to; the operating point is fitted on
        them.
      origin: None where it is not known.
      parts: `model_id` and `weight` of each artifact that was combined; () where none was.
      mirror_gain: what the mirror image gains, the AUROC of held-out images with it minus that
        without; None where it was not measured.
    """

    network: Network
    train: Split
    held_out: Scored
    origin: Origin | None = None
    mirror_gain: float | None = None
    parts: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Measured:
    """Holds what was measured of a trained network.

    Attributes:
      operating_point: fitted on the images that were held out.
      metrics: by split, as in `metrics.json`.
    """

    operating_point: OperatingPoint
    metrics: Mapping[str, Mapping[str, Any]]


def describe_mirroring(architecture: Mapping[str, Any]) -> str:
    """Return a sentence on whether the mirror image is scored too, and what that gains.

    Args:
      architecture: the field of `model.json`.
    """
    gain, mirrored = architecture.get("mirror_gain"), architecture.get("mirrored", False)
    does = (
        "Each image is also scored mirrored left to right, and the two outputs are averaged, which"
        " takes twice as long"
        if mirrored
        else "The mirror image of an image is not scored"
    )
    if gain is None:
        return f"{does}."
    return f"{does}: it changes the AUROC of held-out images by {gain:+.3f}."
