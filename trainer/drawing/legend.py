"""Draw the strip below an overlay that says what its colours mean and how coarse its map is."""

import dataclasses
import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer import radiograph
from trainer.drawing import overlay

NOTICE = "Assists research; not a medical device."
UNIT = "logits per cell"
"""Unit of the maps of `humerus-score`."""
MIN_WIDTH = 200
"""Narrower pictures get a black margin at the right, in pixels."""
LOWEST, HIGHEST = 80, 180
"""The height of a strip lies between these, in pixels, by which a page knows it from a picture."""
SIZES = {"width": MIN_WIDTH, "low": LOWEST, "high": HIGHEST, "side": overlay.MAX_SIDE}
"""By these a page tells a picture from the strip below it and the margin beside it."""

_GREY = 150
_BACKGROUND, _TEXT, _FAINT = (17, 17, 17), (224, 224, 224), (150, 150, 150)
_MARGIN, _BAR_HEIGHT, _MAX_BAR = 8, 12, 360


@dataclasses.dataclass(frozen=True)
class Legend:
    """Holds what the strip says of a map; fields are as the arguments of `overlay.draw`.

    Attributes:
      scale: value of the full colour.
      unit: of that value, such as `logits per cell`.
      method: title of the method that computed the map.
      model: id of the artifact.
      rows, columns: cells of the map.
      image_size: side of the square that the cells divide, in pixels.
      style, colours: how the map is drawn.
    """

    scale: float
    unit: str
    method: str
    model: str
    rows: int
    columns: int
    image_size: int
    style: str = "overlay"
    colours: str = "viridis"


def draw(picture: np.ndarray, cam: np.ndarray, legend: Legend, with_strip: bool) -> np.ndarray:
    """Draw a map by `overlay.draw`, as its legend says; with the strip below it if wanted."""
    drawn = overlay.draw(
        picture, cam, legend.image_size, legend.scale, legend.style, legend.colours
    )
    return add(drawn, legend) if with_strip else drawn


def add(drawn: np.ndarray, legend: Legend) -> np.ndarray:
    """Put the strip below a picture that `overlay.draw` made, uint8 [height, width, 3] in BGR."""
    height, width = drawn.shape[:2]
    pictures = 2 if legend.style == "side_by_side" else 1
    cell = measure_cell(height, width // pictures, legend)
    if width < MIN_WIDTH:
        drawn = cv2.copyMakeBorder(drawn, 0, 0, 0, MIN_WIDTH - width, cv2.BORDER_CONSTANT)
    return np.vstack([drawn, draw_strip(drawn.shape[1], round(cell), legend)])


def draw_bar(width: int, style: str, colours: str) -> np.ndarray:
    """Draw the colours from no evidence to the scale, of an overlay on grey.

    Returns:
      uint8 [h, width, 3] in BGR.
    """
    level = np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (_BAR_HEIGHT, 1))
    table = overlay.colour_table(colours)
    if style == "heatmap":
        return cv2.applyColorMap(level, table)
    bar = overlay.tint(np.full(level.shape, _GREY, np.uint8), level, colours)
    for share in overlay.SHARES:
        x = round(share * (width - 1))
        bar[:, x : x + (2 if share == overlay.SHARES[-1] else 1)] = table[round(share * 255)]
    return bar


def measure_cell(height: int, width: int, legend: Legend) -> float:
    """Return the longer side of a cell of the map in pixels of a picture of [height, width]."""
    place = radiograph.placement(height, width, legend.image_size)
    enlarged = max(height, width) / max(place.height, place.width)
    return legend.image_size / min(legend.rows, legend.columns) * enlarged


@functools.lru_cache(maxsize=64)
def draw_strip(width: int, cell: int, legend: Legend) -> np.ndarray:
    """Draw the strip, uint8 [h, width, 3] in BGR; a cell of the map is `cell` pixels long."""
    size = 13 if width >= 480 else 11
    font = ImageFont.load_default(size)
    inner = width - 2 * _MARGIN
    bar = min(inner, _MAX_BAR)
    shares = ", ".join(f"{share:.0%}".rstrip("%") for share in overlay.SHARES)
    lines = "" if legend.style == "heatmap" else f"; lines at {shares} %"
    meaning = f"{legend.method}: 0 to {legend.scale:.3g} {legend.unit} or more{lines}"
    pixels = f"{cell} pixels" if cell > 1 else "1 pixel" if cell else "less than a pixel"
    coarse = f"one of {legend.rows} x {legend.columns} cells: {pixels} of this picture"
    made = f"Model {legend.model}. {NOTICE}"
    blocks = [
        (_wrap(text, inner, font), colour)
        for text, colour in ((meaning, _TEXT), (coarse, _TEXT), (made, _FAINT))
    ]
    line = size + 5
    height = 2 * _MARGIN + 2 * _BAR_HEIGHT + line * sum(len(block) for block, _ in blocks)
    strip = Image.new("RGB", (width, height), _BACKGROUND)
    strip.paste(
        Image.fromarray(draw_bar(bar, legend.style, legend.colours)[..., ::-1]), (_MARGIN, _MARGIN)
    )
    pen = ImageDraw.Draw(strip)
    y = _MARGIN + _BAR_HEIGHT + 4
    for i, (block, colour) in enumerate(blocks):
        if i == 1:  # the cell at its size, above the words on it
            _draw_ruler(pen, min(cell, inner), y + 3)
            y += _BAR_HEIGHT - 4
        for text in block:
            pen.text((_MARGIN, y), text, font=font, fill=colour)
            y += line
    return np.asarray(strip)[..., ::-1].copy()


def _draw_ruler(pen: ImageDraw.ImageDraw, length: int, y: int) -> None:
    """Draw a horizontal ruler of `length` pixels."""
    right = _MARGIN + max(length - 1, 0)
    pen.line((_MARGIN, y, right, y), fill=_TEXT)
    for x in (_MARGIN, right):
        pen.line((x, y - 3, x, y + 3), fill=_TEXT)


def _wrap(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Break a text between words so that no line is wider than `width` pixels, if words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
