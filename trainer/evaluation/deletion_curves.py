"""Compute deletion and insertion curves: the logit as more of an image is hidden or shown."""

from collections.abc import Callable

import cv2
import numpy as np

_SHARES = np.arange(1, 6) / 10
"""Shares of the cells along a deletion or insertion curve, which ends at half of the map."""
Serve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps images, uint8 [N, size, size, 1], to logits [N] and class activation maps [N, h, w]."""


def compute_curves(
    serve: Serve, images: np.ndarray, maps: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Compute the curves by the order of the map, and in random order (Petsiuk et al. 2018).

    Deletion starts from the image and blurs cells; insertion starts from the blurred image.

    Args:
      images: uint8 [N, size, size, 1].
      maps: float32 [N, h, w].

    Returns:
      `deletion`, `insertion`, `random_deletion` and `random_insertion`: logits, float [shares, N].
    """
    blurred = np.stack(
        [cv2.GaussianBlur(image, (0, 0), image.shape[0] / 10)[..., None] for image in images]
    )
    falling = (-maps.reshape(len(maps), -1)).argsort(axis=1)

    def curve(under: np.ndarray, over: np.ndarray, order: Callable[[], np.ndarray]) -> np.ndarray:
        mixed = [_mix_images(under, over, order(), share, maps.shape[1:]) for share in _SHARES]
        return np.array([serve(some)[0] for some in mixed])

    by_map, random = (lambda: falling), (lambda: rng.permuted(falling, axis=1))
    return {
        "deletion": curve(images, blurred, by_map),
        "random_deletion": curve(images, blurred, random),
        "insertion": curve(blurred, images, by_map),
        "random_insertion": curve(blurred, images, random),
    }


def _mix_images(
    under: np.ndarray, over: np.ndarray, order: np.ndarray, share: float, grid: tuple[int, ...]
) -> np.ndarray:
    """Replace cells of `under` by those of `over`, both uint8 [N, size, size, 1].

    Replaced is the given share of the cells, the first ones in `order`, int [N, cells].
    """
    size, cells = under.shape[1], order.shape[1]
    chosen = np.zeros(order.shape, np.uint8)
    np.put_along_axis(chosen, order[:, : max(1, round(share * cells))], 1, axis=1)
    place = [
        cv2.resize(one.reshape(grid), (size, size), interpolation=cv2.INTER_NEAREST)
        for one in chosen
    ]
    return np.where(np.stack(place)[..., None] > 0, over, under)
