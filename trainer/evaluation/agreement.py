"""How far two engines agree on the same images, and how far they must for one to stand in for the other."""

from collections.abc import Callable, Mapping

import numpy as np
import sklearn.metrics

TOLERANCE = {
    "probability_mean": 0.01,
    "probability_largest": 0.05,
    "labels_changed": 0.02,
    "auroc_change": 0.005,
    "cam_correlation": 0.98,
}
"""Mean and largest |difference| of probability, share of labels that change, |difference| of AUROC: at most. Correlation of the
maps over all cells of all images: at least."""


def compare(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    label: Callable[[float], str],
    truth: np.ndarray | None = None,
) -> dict[str, float]:
    """What `outputs` differ by from `reference`; the keys are those of `TOLERANCE`.

    Args:
      reference, outputs: `probability` [N] and `cam` [N, h, w], float32.
      label: of a probability, as `Artifact.label`.
      truth: int [N], 1 for positive; without both classes there is no `auroc_change`.
    """
    ours, theirs = outputs["probability"], reference["probability"]
    difference = np.abs(ours - theirs)
    found = {
        "probability_mean": float(difference.mean()),
        "probability_largest": float(difference.max()),
        "labels_changed": float(
            np.mean([label(float(a)) != label(float(b)) for a, b in zip(ours, theirs, strict=True)])
        ),
        "cam_correlation": _correlate(outputs["cam"].ravel(), reference["cam"].ravel()),
    }
    if truth is not None and 0 < truth.sum() < len(truth) and np.isfinite(ours).all():
        found["auroc_change"] = float(
            sklearn.metrics.roc_auc_score(truth, ours)
            - sklearn.metrics.roc_auc_score(truth, theirs)
        )
    return found


def is_within_tolerance(found: Mapping[str, float]) -> bool:
    """Whether what `compare` found may be scored with; what is not a number may not."""
    differences = [
        abs(value) <= TOLERANCE[name] for name, value in found.items() if name != "cam_correlation"
    ]
    return all(differences) and found["cam_correlation"] >= TOLERANCE["cam_correlation"]


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; where one of them is constant, whether both are the same."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.allclose(a, b))
    return float(np.corrcoef(a, b)[0, 1])
