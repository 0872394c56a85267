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
from trainer.network import flips
from trainer.network.flips import Flips
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
      flip_gains: what scoring flipped copies gains, the AUROC of held-out images with them minus
        that of the image alone; empty where it was not measured.
    """

    network: Network
    train: Split
    held_out: Scored
    origin: Origin | None = None
    flip_gains: Mapping[Flips, float] = dataclasses.field(default_factory=dict)
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


def describe_flips(architecture: Mapping[str, Any]) -> str:
    """Return a sentence on the flipped copies that are scored too, and what they gain.

    Args:
      architecture: the field of `model.json`.
    """
    said = _SAID[flips.read(architecture)]
    gains = architecture.get("flip_gains")
    if not gains:
        return f"{said}."
    listed = ", ".join(f"{_NAMES[name]} {gain:+.3f}" for name, gain in gains.items())
    return f"{said}. Change in AUROC of held-out images: {listed}."


_SAID: Mapping[Flips, str] = {
    "none": "No flipped copies of an image are scored",
    "horizontal": (
        "Each image is also scored mirrored left to right, and the two outputs are averaged, which"
        " takes twice as long"
    ),
    "both": (
        "Each image is also scored mirrored left to right, upside down, and both, and the four"
        " outputs are averaged, which takes four times as long"
    ),
}
_NAMES: Mapping[Flips, str] = {
    "horizontal": "with the mirror image",
    "both": "with all flipped copies",
}
