"""Define the affine map from a logit to that of a calibrated probability."""

import dataclasses
import math

import numpy as np

_LARGEST_EXPONENT = 700
"""exp overflows float64 from 709.8 on."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Affine map from the logit of a network to the logit of a calibrated probability.

    Attributes:
      temperature: divisor of the logit, above 0.
      intercept: added afterwards. It undoes what the weights of the classes in the loss, or another
        share of positives, add to every logit.
    """

    temperature: float = 1.0
    intercept: float = 0.0

    def compute_probability(self, logit: np.ndarray | float) -> np.ndarray:
        """Return sigmoid(logit / temperature + intercept), float64 in [0, 1], of logits [N]."""
        calibrated = np.asarray(logit, np.float64) / self.temperature + self.intercept
        if not calibrated.ndim and calibrated > -_LARGEST_EXPONENT:
            return np.asarray(1 / (1 + math.exp(-calibrated)))[()]  # as scipy computes it
        import scipy.special  # which takes a fifth of a second, and most commands have one logit

        return scipy.special.expit(calibrated)


IDENTITY = Scaling()
"""The scaling that leaves a logit as it is."""
