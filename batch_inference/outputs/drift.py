"""How far the scored images lie from those that the model was made on: the population stability index of two histograms."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

MEASURED = ("probability", "brightness")
"""Columns of a prediction of which the artifact may keep a histogram."""

MIN_IMAGES = 50
SOME, MUCH = 0.1, 0.25


def bin_of(value: float, edges: Sequence[float]) -> int:
    """Index of the bin that holds `value`; the outer bins hold what lies beyond them too."""
    return min(max(bisect.bisect_right(edges, value) - 1, 0), len(edges) - 2)


def compare(counts: Sequence[int], kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `summary.json` says of one histogram.

    Args:
      counts: images in each bin of `kept`.
      kept: the artifact's `edges`, `shares` and number of `images`; None where it keeps none.

    Returns:
      `psi`; `chance`, which it exceeds once in twenty times without any drift; `drift`: none, some (0.1 and above) or much
      (0.25 and above), and none where chance explains it; the two histograms as `shares`. Or `psi` None and `reason`.
    """
    if kept is None or "images" not in kept:
        return {
            "psi": None,
            "reason": "the artifact keeps no histogram to compare with, or not of how many images; export it again",
        }
    images, reference_images = sum(counts), kept["images"]
    if min(images, reference_images) < MIN_IMAGES:
        return {
            "psi": None,
            "reason": f"{images} images scored and {reference_images} in the artifact's histogram; each must be {MIN_IMAGES} or more",
        }
    index = psi(
        np.array(counts) / images, np.array(kept["shares"]), 0.5 / min(images, reference_images)
    )
    chance = chance_limit(len(counts), images, reference_images)
    return {
        "psi": round(index, 4),
        "chance": round(chance, 4),
        "drift": "none" if index < max(SOME, chance) else "some" if index < MUCH else "much",
        "edges": list(kept["edges"]),
        "shares": [round(count / images, 6) for count in counts],
        "reference_shares": [round(share, 6) for share in kept["shares"]],
    }


def psi(shares: np.ndarray, reference: np.ndarray, smoothing: float) -> float:
    """Sum of (a - b) ln(a / b) over the bins: Siddiqi, "Credit risk scorecards", 2006; Jeffreys, 1946. 0 for equal shares.

    Args:
      shares, reference: [bins], each of sum 1.
      smoothing: added to every share of both, so that an empty bin has a logarithm and equal shares stay equal.
    """
    a, b = ((s + smoothing) / (1 + smoothing * len(s)) for s in (shares, reference))
    return float(np.sum((a - b) * np.log(a / b)))


def chance_limit(bins: int, images: int, reference_images: int) -> float:
    """95 % quantile without drift: (1/n + 1/m) times chi-squared with one degree of freedom less than bins.

    Yurdakul, "Statistical properties of population stability index", Western Michigan University, 2018. For independent
    images; those of one patient are alike, which makes large values likelier.
    """
    return float((1 / images + 1 / reference_images) * special.chdtri(bins - 1, 0.05))


def describe(drift: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to tell at the end of a run where there is much drift."""
    much = [
        f"{name} (PSI {measured['psi']:.2f})"
        for name, measured in drift.items()
        if measured.get("drift") == "much"
    ]
    return (
        [f"these images differ much from those the model was made on, by {' and '.join(much)}"]
        if much
        else []
    )
