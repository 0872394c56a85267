"""Define the line that turns a logit into a calibrated probability, for images and for studies."""

import dataclasses

import numpy as np
import scipy.special


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Line from the logit of a network to the logit of a calibrated probability.

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
        return scipy.special.expit(calibrated)


IDENTITY = Scaling()
"""The scaling that leaves a logit as it is."""
