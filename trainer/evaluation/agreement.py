"""Decide whether an engine may replace the reference: close on every image, or not inferior.

One of two tests must hold, and the maps must agree in any case.

1. Close on every image: differences of probability that no reader would notice (`CLOSE`).
2. Not inferior: on labelled images the paired patient bootstrap bounds what the engine may lose in
   AUROC and in accuracy at the operating point, and how many labels change (`MARGINS`). This is the
   question that a user asks. A single image near the threshold may move far without any decision
   or rank being worse for it.

Non-inferiority: Piaggio et al. 2012, JAMA 308:2594. The whole interval must lie above minus the
margin.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.stats

from trainer.evaluation import bootstrap, metrics
from trainer.evaluation.cases import Cases

CLOSE = {"probability_mean": 0.01, "probability_largest": 0.05, "labels_changed": 0.02}
"""At most: mean and largest absolute difference of probability, share of labels that change."""
MARGINS = {"auroc": 0.02, "accuracy": 0.03, "ece": 0.03}
"""What an engine may be worse by, at the unfavourable end of a 95 % interval.

benchmarks/README.md argues the sizes.
"""
MOST_CHANGED = 0.10
"""Upper 95 % bound of the share of labels that change."""
LEAST_CORRELATION = 0.95
"""Of the maps, over all cells of all images."""


def compare(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    label: Callable[[float], str],
    threshold: float,
    known: Cases | None = None,
) -> dict[str, Any]:
    """Return how `outputs` differ from `reference`, and whether they may replace them.

    Args:
      reference: `probability` [N], `logit` [N] and `cam` [N, h, w] of the reference, float32.
      outputs: the same of another engine, of the same images.
      label: the label of a probability, as `Artifact.label`.
      threshold: probability from which an image is called positive.
      known: labels and patients of the images in this order; None where labels aren't known.

    Returns:
      `probability_mean`, `probability_largest`: absolute differences of probability.
      `labels_changed` and `labels_changed_high`: a share and its upper bound.
      `logit_difference`: root mean square, in standard deviations of the reference's logits.
      `cam_correlation`: of the maps.
      `auroc`, `accuracy` and `ece`, where both classes and patients enough for an interval are
      known: `difference`, `low`, `high`.
      `within_tolerance`: the verdict. `verdict`: its reason in words.
    """
    if not all(np.isfinite(outputs[name]).all() for name in ("probability", "logit", "cam")):
        return {"within_tolerance": False, "verdict": "some outputs are not finite numbers"}
    found: dict[str, Any] = dict(_measure_differences(reference, outputs, label))
    if (
        known is not None
        and 0 < known.label.sum() < len(known)
        and len(np.unique(known.patient_id)) >= bootstrap.MIN_PATIENTS
    ):
        found |= _measure_paired(known, reference, outputs, threshold)
    accepted, verdict = _judge(found)
    return {**found, "within_tolerance": accepted, "verdict": verdict}


def _measure_differences(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    label: Callable[[float], str],
) -> dict[str, float]:
    ours, theirs = outputs["probability"], reference["probability"]
    difference = np.abs(ours - theirs)
    pairs = zip(ours.tolist(), theirs.tolist(), strict=True)
    changed = sum(label(a) != label(b) for a, b in pairs)
    spread = max(float(reference["logit"].std()), np.finfo(np.float32).tiny)
    return {
        "probability_mean": float(difference.mean()),
        "probability_largest": float(difference.max()),
        "labels_changed": changed / len(ours),
        "labels_changed_high": _bound_share(changed, len(ours)),
        "logit_difference": float(
            np.sqrt(np.mean((outputs["logit"] - reference["logit"]) ** 2)) / spread
        ),
        "cam_correlation": _correlate(outputs["cam"].ravel(), reference["cam"].ravel()),
    }


def _measure_paired(
    known: Cases,
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    threshold: float,
) -> dict[str, dict[str, float | None]]:
    before, after = (
        dataclasses.replace(known, probability=side["probability"], logit=side["logit"])
        for side in (reference, outputs)
    )
    compared = metrics.compare(before, after, threshold, threshold)["image"]
    return {
        name: {key: compared[name][key] for key in ("difference", "low", "high")}
        for name in MARGINS
    }


def _judge(found: Mapping[str, Any]) -> tuple[bool, str]:
    """Return the verdict and its reason; what is not a number is refused."""
    if not found["cam_correlation"] >= LEAST_CORRELATION:
        return False, (
            f"the maps correlate by {found['cam_correlation']:.3f} only; expected"
            f" {LEAST_CORRELATION} or more"
        )
    exceeded = [name for name, most in CLOSE.items() if not found[name] <= most]
    if not exceeded:
        return True, "close on every image"
    if "auroc" not in found:
        name = exceeded[0]
        return False, (
            f"{_NAMES[name]} is {found[name]:.3f}, at most {CLOSE[name]} may be; only labelled"
            " images of both classes can show whether that matters"
        )
    if not found["labels_changed_high"] <= MOST_CHANGED:
        return False, (
            f"up to {found['labels_changed_high']:.1%} of the labels change; at most"
            f" {MOST_CHANGED:.0%} may; more labelled images narrow the bound"
        )
    for name, margin in MARGINS.items():
        worst = _find_worst(name, found[name])
        if worst is None or not worst >= -margin:
            lost = "by an unknown amount" if worst is None else f"by up to {-worst:.3f}"
            return False, (
                f"{_NAMES[name]} may be worse {lost}, the margin is {margin}; more labelled images"
                " narrow the interval"
            )
    return True, "not inferior"


_NAMES = {
    "probability_mean": "the mean difference of probability",
    "probability_largest": "the largest difference of probability",
    "labels_changed": "the share of labels that change",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "ece": "calibration error",
}


def _find_worst(name: str, measured: Mapping[str, float | None]) -> float | None:
    """Return the unfavourable end of an interval, negative where the engine is worse.

    Where resamples don't differ there is no interval, and the difference itself is what is known.
    """
    difference = measured["difference"]
    if name == "ece":  # less is better
        high = measured["high"] if measured["high"] is not None else difference
        return None if high is None else -high
    return measured["low"] if measured["low"] is not None else difference


def _bound_share(count: int, total: int) -> float:
    """Return the upper end of the two-sided 95 % interval of a share.

    Clopper and Pearson 1934, Biometrika 26:404.
    """
    if count >= total:
        return 1.0
    return float(scipy.stats.beta.ppf((1 + bootstrap.CONFIDENCE) / 2, count + 1, total - count))


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; where one side is constant, 1 if both are the same, else 0."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.allclose(a, b))
    return float(np.corrcoef(a, b)[0, 1])
