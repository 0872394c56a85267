"""Augment images in training: draw what changes, then warp each image and change its tone."""

import dataclasses

import cv2
import numpy as np

_BILINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Holds the ranges of random augmentation; 0 or False switches one off.

    Attributes:
      horizontal_flip, vertical_flip: whether to mirror with probability 0.5.
      rotation: largest angle either way, in degrees.
      shift: largest shift along each axis, as a fraction of the side.
      zoom: the factor is from 1 / (1 + zoom) to 1 + zoom.
      contrast: the exponent of a gamma curve is from 1 / (1 + contrast) to 1 + contrast. Black
        stays black, including the letterbox.
      brightness: the gain is from 1 / (1 + brightness) to 1 + brightness.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 30.0
    shift: float = 0.05
    zoom: float = 0.1
    contrast: float = 0.2
    brightness: float = 0.1


def augment(images: np.ndarray, transform: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Change the tone of images and warp them.

    OpenCV needs an eighth of the time of TensorFlow's operations, and releases the GIL.

    Args:
      images: uint8 [B, size, size, 1].
      transform: float32 [B, 2, 3], from output to input pixels.
      tone: uint8 [B, 256], by grey level.

    Returns:
      uint8 [B, size, size, 1].
    """
    changed = np.empty_like(images)
    size = (images.shape[2], images.shape[1])
    for image, matrix, levels, target in zip(images, transform, tone, changed, strict=True):
        # Pixels from outside the image become black.
        cv2.warpAffine(
            cv2.LUT(image[:, :, 0], levels), matrix, size, dst=target[:, :, 0], flags=_BILINEAR
        )
    return changed


def draw_augmentation(
    augmentation: Augmentation, count: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw the parameters of `augment` for each position, with leading dimension `count`."""

    def factor(reach: float) -> np.ndarray:
        return np.exp(rng.uniform(-1, 1, count) * np.log1p(reach))

    flips = [np.where(rng.random(count) < 0.5, -1.0, 1.0) for _ in range(2)]
    flip_x = flips[0] if augmentation.horizontal_flip else np.ones(count)
    flip_y = flips[1] if augmentation.vertical_flip else np.ones(count)
    angle = np.deg2rad(augmentation.rotation) * rng.uniform(-1, 1, count)
    zoom = factor(augmentation.zoom)
    shift = augmentation.shift * size * rng.uniform(-1, 1, (2, count))
    a, b = np.cos(angle) * flip_x / zoom, -np.sin(angle) * flip_y / zoom
    c, d = np.sin(angle) * flip_x / zoom, np.cos(angle) * flip_y / zoom
    centre = (size - 1) / 2
    tx = centre - a * centre - b * centre + shift[0]
    ty = centre - c * centre - d * centre + shift[1]
    transform = np.stack([a, b, tx, c, d, ty], axis=1).reshape(count, 2, 3).astype("float32")
    gamma, gain = factor(augmentation.contrast)[:, None], factor(augmentation.brightness)[:, None]
    tone = np.minimum(gain * (np.arange(256) / 255.0) ** gamma, 1.0) * 255.0
    return {"transform": transform, "tone": np.rint(tone).astype(np.uint8)}
