"""Draw a class activation map on its radiograph, with one colour scale for all images of a run.

The map is a light tint, with lines at stated shares of the scale. The tint changes hue and chroma
only: the luminance of every pixel outside the lines stays that of the radiograph, so that what is
to be looked at isn't hidden. Only evidence *for* the positive label is coloured: what lowers the
logit leaves the radiograph grey.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from trainer import radiograph

MAX_SIDE = 1024
OPACITY = 0.48
"""Share of the chroma of the full colour that the tint has at and above the scale."""
SHARES = (0.25, 0.5, 0.75)
"""Shares of the scale at which the map has a line; the last line is the widest."""
FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
MIME_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Colours(NamedTuple):
    """Says how a map is coloured.

    Attributes:
      table: colour map of OpenCV, 256 colours.
      first: the first colour that lines and heatmaps use.
      tint: the first colour whose hue the tint has; 255 for one hue at every value.
    """

    table: int
    first: int
    tint: int


COLOURS = {
    "viridis": Colours(cv2.COLORMAP_VIRIDIS, 70, 255),
    "jet": Colours(cv2.COLORMAP_JET, 0, 0),
}
"""viridis (Smith & van der Walt 2015, https://bids.github.io/colormap) without its dark end, which
on a dark radiograph is not a colour; jet is what older software shows. The tint of viridis has the
hue of its last colour, and more chroma for more evidence. One hue is in the same order for every
kind of colour vision."""

_MARGIN = 3
_LARGE = 512
"""Longer side, in pixels, from which on lines are found at half the size and the last is wider."""
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
      colours: key of `COLOURS`.

    Returns:
      uint8 [height, width, 3] in BGR; twice as wide for side_by_side.
    """
    height, width = picture.shape
    level = levels(cam, height, width, image_size, scale)
    if style == "heatmap":
        return cv2.applyColorMap(level, colour_table(colours))
    drawn = tint(picture, level, colours)
    _draw_lines(drawn, level, colours)
    if style == "side_by_side":
        return np.hstack([cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), drawn])
    return drawn


def tint(picture: np.ndarray, level: np.ndarray, colours: str) -> np.ndarray:
    """Colour a picture by level, uint8 [height, width] each; the luminance stays the picture's.

    Returns:
      uint8 [height, width, 3] in BGR.
    """
    # One look-up for each pixel, by 256 times the grey value plus the level.
    index = cv2.merge([level, picture]).view("<u2")[..., 0]
    colour = cv2.LUT(index, _tint_table(colours), np.empty(index.shape, np.int32))
    return cv2.cvtColor(colour.view(np.uint8).reshape(*index.shape, 4), cv2.COLOR_BGRA2BGR)


def _draw_lines(drawn: np.ndarray, level: np.ndarray, colours: str) -> None:
    """Draw the lines at `SHARES` into uint8 [height, width, 3]."""
    table = colour_table(colours)[:, 0].tolist()
    is_large = max(level.shape) >= _LARGE
    step = 2 if is_large else 1
    # A region at the edge of the picture goes on outside, so that no line follows the edge.
    around = (_MARGIN, _MARGIN, _MARGIN, _MARGIN)
    coarse = cv2.copyMakeBorder(level[::step, ::step], *around, borderType=cv2.BORDER_REPLICATE)
    for share in SHARES:
        value = round(share * 255)
        outlines, _ = cv2.findContours(
            (coarse >= value).view(np.uint8),
            cv2.RETR_LIST,
            cv2.CHAIN_APPROX_SIMPLE,
            offset=(-_MARGIN, -_MARGIN),
        )
        # Straight lines in place of the steps between pixels: smoother, and faster to draw.
        outlines = [cv2.approxPolyDP(outline, 0.6, True) * step for outline in outlines]
        width = 2 if share == SHARES[-1] and is_large else 1
        cv2.drawContours(drawn, outlines, -1, table[value], width, cv2.LINE_AA)


def levels(
    cam: np.ndarray, height: int, width: int, image_size: int, scale: float, points: int = 24
) -> np.ndarray:
    """Resize the map to the picture: uint8 [height, width], 0 at and below zero, 255 at and above
    `scale`.

    A pixel lies at its place inside the letterbox square; values between the centres of cells are
    interpolated (cubic). Of a large picture that is done on a coarser grid, at least `points` to
    the side of a cell, with straight lines between them.
    """
    place = radiograph.placement(height, width, image_size)
    step = max(1, min(height // (points * cam.shape[0]), width // (points * cam.shape[1])))
    rows = _interpolation(-(-height // step), place.top, place.height, image_size, cam.shape[0])
    columns = _interpolation(-(-width // step), place.left, place.width, image_size, cam.shape[1])
    values = rows @ (cam.astype(np.float32) * np.float32(255 / scale)) @ columns.T
    coarse = np.clip(values, 0, 255, out=values).astype(np.uint8)
    return (
        coarse if step == 1 else cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    )


@functools.lru_cache(maxsize=1024)
def _interpolation(pixels: int, start: int, extent: int, image_size: int, cells: int) -> np.ndarray:
    """Return the weight of each cell at each pixel along one axis, float32 [pixels, cells].

    Beyond the centres of the outer cells, their values are repeated.

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
def colour_table(colours: str) -> np.ndarray:
    """Return the opaque colours by level 0 to 255, uint8 [256, 1, 3] in BGR."""
    chosen = COLOURS[colours]
    return _read_colours(chosen.table, chosen.first)


@functools.cache
def _tint_table(colours: str) -> np.ndarray:
    """Return the tinted colours, int32 [1, 65536], bytes BGR and one more, by 256 grey + level.

    A colour that the screen lacks at this luminance gets the largest chroma that it has.
    """
    chosen = COLOURS[colours]
    full = _read_colours(chosen.table, chosen.tint).astype(np.float32) / 255
    strength = OPACITY * np.linspace(0, 1, 256, dtype=np.float32)
    chroma = cv2.cvtColor(full, cv2.COLOR_BGR2Lab)[:, 0, 1:] * strength[:, None]
    grey = np.arange(256, dtype=np.uint8)
    lab = np.zeros((256, 256, 3), np.float32)
    as_bgr = cv2.cvtColor(grey[:, None], cv2.COLOR_GRAY2BGR).astype(np.float32) / 255
    lab[..., 0] = cv2.cvtColor(as_bgr, cv2.COLOR_BGR2Lab)[..., 0]
    within = np.zeros((256, 256, 1), np.float32)
    for step in 0.5 ** np.arange(1, 9, dtype=np.float32):
        lab[..., 1:] = chroma * (within + step)
        within += step * _is_displayable(lab)
    lab[..., 1:] = chroma * within
    bgr = (cv2.cvtColor(lab, cv2.COLOR_Lab2BGR) * 255).round().clip(0, 255).astype(np.uint8)
    bgr[:, 0] = grey[:, None]
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA).view(np.int32).reshape(1, -1)


def _is_displayable(lab: np.ndarray) -> np.ndarray:
    """Return which colours, float32 [h, w, 3] in CIELAB, sRGB has: bool [h, w, 1]."""
    bgr = cv2.cvtColor(lab, cv2.COLOR_Lab2BGR)  # cuts values off at 0 and 1
    difference = np.abs(cv2.cvtColor(bgr, cv2.COLOR_BGR2Lab) - lab)
    return difference.max(axis=-1, keepdims=True) < 0.5


def _read_colours(table: int, first: int) -> np.ndarray:
    """Return 256 colours from `first` to the last of a table of OpenCV, uint8 [256, 1, 3], BGR."""
    places = np.linspace(first, 255, 256).round().astype(np.uint8)
    return cv2.applyColorMap(places[:, None], table)


def encode(picture: np.ndarray, file_format: str) -> bytes:
    """Encode uint8 [height, width, 3] in BGR as a `jpeg`, `png` or `webp` file."""
    done, encoded = cv2.imencode(FORMATS[file_format], picture, list(_ENCODING[file_format]))
    if not done:
        raise ValueError(f"a picture of {picture.shape} could not be encoded as {file_format}")
    return encoded.tobytes()
