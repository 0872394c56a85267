"""Measure drift from the model's own images: the population stability index of histograms."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MEASURED = ("probability", "brightness")
"""The columns of a prediction whose histogram the artifact may hold."""

MIN_IMAGES = 50
SOME, MUCH = 0.1, 0.25


def bin_of(value: float, edges: Sequence[float]) -> int:
    """Return the index of the bin that holds `value`; the outer bins are open."""
    return min(max(bisect.bisect_right(edges, value) - 1, 0), len(edges) - 2)


def compare(counts: Sequence[int], kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what `summary.json` says of one histogram.

    Args:
      counts: images in each bin of `kept`.
      kept: the artifact's `edges`, `shares` and number of `images`; None where it has none.

    Returns:
      `psi`; `chance`, the 95 % quantile of the index without drift; `drift`: some (0.1 and above)
      or much (0.25 and above), and none below 0.1 or `chance`; the bins' `edges`; both histograms
      as `shares` and `reference_shares`. Where they cannot be compared: `psi` None and `reason`.
    """
    if kept is None or "images" not in kept:
        return {
            "psi": None,
            "reason": "the artifact has no histogram to compare with, or not its number of images; "
            "export it again",
        }
    images, reference_images = sum(counts), kept["images"]
    if min(images, reference_images) < MIN_IMAGES:
        return {
            "psi": None,
            "reason": f"{images} images scored and {reference_images} in the artifact's histogram; "
            f"each must be {MIN_IMAGES} or more",
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
    """Return the sum of (a - b) ln(a / b) over the bins, which is 0 for equal shares.

    Siddiqi, "Credit risk scorecards", 2006; Jeffreys, 1946.

    Args:
      shares: [bins], sum 1.
      reference: [bins], sum 1.
      smoothing: added to each share of both, so that an empty bin has a logarithm.
    """
    a, b = ((s + smoothing) / (1 + smoothing * len(s)) for s in (shares, reference))
    return float(np.sum((a - b) * np.log(a / b)))


def chance_limit(bins: int, images: int, reference_images: int) -> float:
    """Return the 95 % quantile of the index of independent images without drift.

    That is (1/n + 1/m) times chi-squared with `bins - 1` degrees of freedom: Yurdakul, "Statistical
    properties of population stability index", Western Michigan University, 2018. Images of one
    patient are alike, which makes larger values more likely.
    """
    from scipy import special  # which takes a fifth of a second to import

    return float((1 / images + 1 / reference_images) * special.chdtri(bins - 1, 0.05))


def describe(drift: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence on the columns with much drift; no sentence where there is none."""
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
