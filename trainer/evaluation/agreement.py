"""Compare the outputs of two engines on the same images with the tolerance for replacing one."""

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
"""Limits of what `compare` returns.

Upper limits: mean and largest absolute difference of the probability, share of labels that change,
absolute difference of the AUROC. Lower limit: correlation of the maps over all cells of all images.
"""


def compare(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    label: Callable[[float], str],
    truth: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure how far `outputs` differ from `reference`.

    Args:
      reference, outputs: `probability` [N] and `cam` [N, h, w], float32.
      label: maps a probability to its label, as `Artifact.label` does.
      truth: int [N], 1 for positive. If a class is missing, `auroc_change` is omitted.

    Returns:
      The measured differences, by the keys of `TOLERANCE`.
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
    """Return whether all values of `compare` are within `TOLERANCE`; NaN is not."""
    differences = [
        abs(value) <= TOLERANCE[name] for name, value in found.items() if name != "cam_correlation"
    ]
    return all(differences) and found["cam_correlation"] >= TOLERANCE["cam_correlation"]


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; if an array is constant, 1 if both are equal, otherwise 0."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.allclose(a, b))
    return float(np.corrcoef(a, b)[0, 1])
