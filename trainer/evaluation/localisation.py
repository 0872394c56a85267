"""Measure how well class activation maps localise findings, with two baselines without a network.

- Hit rate (the pointing game, Zhang et al. 2018, arXiv:1608.00507): the share of images in which
  the centre of the map's highest cell lies on the mask, or at most 15 pixels of 224 away from it.
- Energy (the energy-based pointing game, Wang et al. 2020, arXiv:1910.01279): the share of the
  map's positive values inside the mask.
- IoU: intersection over union of the mask and the cells above a share of the map's maximum. The
  share is tuned on one half of the images for the other half.
"""

import cv2
import numpy as np

from trainer.evaluation import bootstrap

METRICS = ("hit_rate", "energy", "iou")
_TOLERANCE = 15 / 224
_SHARES = np.linspace(0.1, 0.9, 17)


def score_maps(maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each of `METRICS` for each image, float64 [N] in [0, 1].

    Args:
      maps: float32 [N, h, w], covering the whole square; they are resized to the size of the masks.
      masks: bool [N, size, size], none of them empty.
    """
    size = masks.shape[1]
    stretched = np.stack(
        [
            cv2.resize(one.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
            for one in maps
        ]
    )
    positive = np.maximum(stretched, 0)
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    # A map without a positive value shows nothing, so it hits nothing.
    shown = total > 0
    hit = np.array(
        [_dilate(mask)[_find_peak(one, size)] for one, mask in zip(maps, masks, strict=True)]
    )
    return {
        "hit_rate": (hit & shown).astype(np.float64),
        "energy": np.divide(inside, total, out=np.zeros(len(maps)), where=shown),
        "iou": _compute_tuned_iou(positive, masks),
    }


def compute_interval(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Compute the mean of float [N] with its 95 % bootstrap interval over images.

    Returns:
      `value`, `low` and `high`.
    """
    (drawn,) = bootstrap.draw_multiplicities(len(values), resamples, seed)
    means = drawn @ values / len(values)
    low, high = np.quantile(means, bootstrap.TAILS)
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def point_at_centre(images: np.ndarray) -> np.ndarray:
    """Return maps that are highest in the middle of the image, a baseline.

    Args:
      images: uint8 [N, size, size, 1].

    Returns:
      float32 [N, size, size].
    """
    size = images.shape[1]
    distance = np.abs(np.arange(size) - (size - 1) / 2) / size
    return np.broadcast_to(
        np.exp(-8 * (distance[:, None] ** 2 + distance**2)), images.shape[:3]
    ).astype(np.float32)


def point_at_brightest(images: np.ndarray) -> np.ndarray:
    """Return maps that are highest in the brightest region of the image, a baseline.

    Images are smoothed by a Gaussian whose standard deviation is a sixteenth of the side. Shapes
    and types are those of `point_at_centre`.
    """
    return np.stack(
        [
            cv2.GaussianBlur(image[..., 0].astype(np.float32), (0, 0), image.shape[0] / 16)
            for image in images
        ]
    )


BASELINES = {"centre": point_at_centre, "brightest": point_at_brightest}


def _find_peak(one: np.ndarray, size: int) -> tuple[int, ...]:
    """Find row and column of the pixel at the centre of a map's highest cell.

    It is not searched in the resized map, where a cell at the edge is a plateau without a peak.
    """
    cell = np.unravel_index(one.argmax(), one.shape)
    return tuple(int((i + 0.5) * size / cells) for i, cells in zip(cell, one.shape, strict=True))


def _dilate(mask: np.ndarray) -> np.ndarray:
    """Extend a mask by the tolerance of the hit rate."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return away <= _TOLERANCE * mask.shape[0]


def _compute_tuned_iou(positive: np.ndarray, masks: np.ndarray) -> np.ndarray:
    peak = positive.max(axis=(1, 2), keepdims=True)
    by_share = []
    for share in _SHARES:
        above = (positive > 0) & (positive >= share * peak)
        by_share.append((above & masks).sum(axis=(1, 2)) / (above | masks).sum(axis=(1, 2)))
    table = np.array(by_share)
    half = np.arange(len(masks)) % 2
    tuned = np.empty(len(masks))
    for part in (0, 1):
        others = half != part if (half != part).any() else half == part
        tuned[half == part] = table[table[:, others].mean(axis=1).argmax(), half == part]
    return tuned
