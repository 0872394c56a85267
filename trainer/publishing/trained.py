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
from trainer.network.flips import Flips
from trainer.network.serving import Network


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
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
    """The origin of a network's weights.

    Attributes:
      recipe: name of the recipe; empty where it has none.
      weights: what training started from: `imagenet`, `none`, or the name of a file or artifact.
      seed: seed of the run.
    """

    recipe: str
    weights: str
    seed: int


@dataclasses.dataclass(frozen=True)
class TrainingResult:
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
    held_out: ScoredSplit
    origin: Origin | None = None
    flip_gains: Mapping[Flips, float] = dataclasses.field(default_factory=dict)
    parts: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The operating point and the metrics of a trained network.

    Attributes:
      operating_point: fitted on the images that were held out.
      metrics: by split, as in `metrics.json`.
    """

    operating_point: OperatingPoint
    metrics: Mapping[str, Mapping[str, Any]]
