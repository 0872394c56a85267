"""Bring the logits of an engine in reduced precision back to the scale of the reference's.

Rounding and clipped activations shift and compress all logits alike, which an affine map undoes. It
is fitted without labels and changes no rank.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from trainer.model_json.scaling import Scaling


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Affine map from the logit of an engine to that of the reference.

    Attributes:
      slope: factor of the logit, above 0.
      offset: added afterwards.
    """

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, outputs: Mapping[str, np.ndarray], scaling: Scaling) -> dict[str, np.ndarray]:
        """Return the outputs of an engine with aligned `logit` and `probability`, float32 [B].

        Args:
          scaling: turns the logit into the probability.
        """
        logit = self.slope * outputs["logit"].astype(np.float64) + self.offset
        probability = scaling.compute_probability(logit)
        return {
            **outputs,
            "logit": logit.astype(np.float32),
            "probability": probability.astype(np.float32),
        }


def fit(logit: np.ndarray, reference: np.ndarray) -> Alignment:
    """Fit the affine map from `logit` to `reference`, float [N] of the same images.

    The identity is returned where that map would not keep the order of the logits.
    """
    if len(logit) < 2 or not np.isfinite(logit).all() or np.ptp(logit) == 0:
        return Alignment()
    slope, offset = np.polyfit(logit.astype(np.float64), reference.astype(np.float64), 1)
    return Alignment(float(slope), float(offset)) if slope > 0 else Alignment()
