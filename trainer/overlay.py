"""Draw a class activation map on its radiograph, with one colour scale for all images of a run.

Only evidence *for* the positive label is coloured: what lowers the logit leaves the radiograph
grey.
"""

import functools

import cv2
import numpy as np

from trainer import radiograph

MAX_SIDE = 1024
COLOURS = {"viridis": (cv2.COLORMAP_VIRIDIS, 70), "jet": (cv2.COLORMAP_JET, 0)}
"""Colour map and the first of its 256 colours that is used: viridis without its dark end, which on
a dark radiograph is not a colour."""
FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
MIME_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}

_MAX_ALPHA = 0.62
_POINTS = 24
_ENCODING = {
    "jpeg": (cv2.IMWRITE_JPEG_QUALITY, 90),
    "png": (cv2.IMWRITE_PNG_COMPRESSION, 3),
    "webp": (cv2.IMWRITE_WEBP_QUALITY, 85),
}


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Shrink a picture, uint8 [height, width], until no side is over `MAX_SIDE`."""
    longest = max(pixels.shape)
    if longest <= MAX_SIDE:
        return pixels
    height, width = (max(1, round(side * MAX_SIDE / longest)) for side in pixels.shape)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def draw(
    picture: np.ndarray,
    cam: np.ndarray,
    image_size: int,
    scale: float,
    style: str,
    colours: str = "viridis",
) -> np.ndarray:
    """Draws a map on the radiograph that it was made from.

    Args:
      picture: uint8 [height, width], aspect ratio as in the file.
      cam: float32 [h, w], logits per cell over the model's square, letterbox border included.
      image_size: side of that square in pixels.
      scale: value of `cam` at and above which the colour is full, in logits per cell.
      style: overlay, heatmap (the map alone, opaque) or side_by_side (radiograph, then overlay).
      colours: key of `COLOURS`; viridis is read the same without colour vision, jet is what older
        software shows.

    Returns:
      uint8 [height, width, 3] in BGR; twice as wide for side_by_side.
    """
    height, width = picture.shape
    level = levels(cam, height, width, image_size, scale)
    if style == "heatmap":
        return cv2.applyColorMap(level, _tables(colours)[0])
    _, tint, remaining = _tables(colours)
    grey = cv2.multiply(picture, cv2.LUT(level, remaining), scale=1 / 255)
    drawn = cv2.add(cv2.applyColorMap(level, tint), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    if style == "side_by_side":
        return np.hstack([cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), drawn])
    return drawn


def levels(cam: np.ndarray, height: int, width: int, image_size: int, scale: float) -> np.ndarray:
    """Resize the map to the picture: uint8 [height, width], 0 at and below zero, 255 at and above
    `scale`.

    A pixel lies at its place inside the letterbox square; values between the centres of cells are
    interpolated (cubic). Of a large
    picture that is done on a coarser grid, two dozen points to a cell, with straight lines between
    them.
    """
    place = radiograph.placement(height, width, image_size)
    step = max(1, min(height // (_POINTS * cam.shape[0]), width // (_POINTS * cam.shape[1])))
    rows = _interpolation(-(-height // step), place.top, place.height, image_size, cam.shape[0])
    columns = _interpolation(-(-width // step), place.left, place.width, image_size, cam.shape[1])
    values = rows @ (cam.astype(np.float32) * np.float32(255 / scale)) @ columns.T
    coarse = np.clip(values, 0, 255).astype(np.uint8)
    return (
        coarse if step == 1 else cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    )


@functools.lru_cache(maxsize=1024)
def _interpolation(pixels: int, start: int, extent: int, image_size: int, cells: int) -> np.ndarray:
    """float32 [pixels, cells]: weights of each cell at each pixel along one axis, edges repeated.

    Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -1/2.
    """
    centres = start + (np.arange(pixels) + 0.5) * (extent / pixels)
    positions = centres * (cells / image_size) - 0.5
    weights = np.zeros((pixels, cells), np.float32)
    first = np.floor(positions).astype(int) - 1
    for tap in range(4):
        distance = np.abs(positions - (first + tap))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        cell = np.clip(first + tap, 0, cells - 1)
        np.add.at(weights, (np.arange(pixels), cell), np.where(distance < 1, near, far))
    return weights


@functools.cache
def _tables(colours: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By level 0 to 255: opaque colour [256, 1, 3], colour times its opacity, and what is left of
    the radiograph [256] (of 255)."""
    colour_map, first = COLOURS[colours]
    opaque = cv2.applyColorMap(
        np.linspace(first, 255, 256).round().astype(np.uint8)[:, None], colour_map
    )
    strength = np.linspace(0, 1, 256)
    alpha = _MAX_ALPHA * np.sqrt(strength) * np.clip(strength / 0.15, 0, 1)
    tint = (opaque * alpha[:, None, None]).round().astype(np.uint8)
    return opaque, tint, ((1 - alpha) * 255).round().astype(np.uint8)


def encode(picture: np.ndarray, file_format: str) -> bytes:
    """Encode uint8 [height, width, 3] in BGR as a `jpeg`, `png` or `webp` file."""
    done, encoded = cv2.imencode(FORMATS[file_format], picture, list(_ENCODING[file_format]))
    if not done:
        raise ValueError(f"a picture of {picture.shape} could not be encoded as {file_format}")
    return encoded.tobytes()
