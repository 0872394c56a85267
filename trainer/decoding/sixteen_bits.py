"""Convert samples of 16 bits to grey pixels of 8 bits, for grey and for colour.

Pillow has no mode for colour of 16 bits and keeps the higher byte of each sample. Decoded a second
time in the other byte order, the same file gives the lower bytes.
"""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from trainer.decoding.tiles import Slices, iterate_boxes

_SIDE = 512  # of a tile: its samples are widened to 4 bytes each
_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)  # ITU-R 601, of 65536
_FULL = 65535
_DEEP = re.compile(r";16[BLN]$")
_OTHER_ORDER = {"L": "B", "B": "L"}


def full_scale_table(maximum: int) -> np.ndarray:
    """Return the uint8 grey level of each value that the full scale of `maximum` holds.

    The full scale is the smallest of 8, 10, 12, 14 and 16 bits that holds `maximum`.
    """
    bits = next(bits for bits in (8, 10, 12, 14, 16) if maximum < 1 << bits)
    return np.rint(np.arange(1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)


def has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return whether an image that is not loaded yet has RGB or grey and alpha of 16 bits."""
    # Without an order of bytes ("BGR;16", of BMP), all samples of a pixel share 16 bits.
    return image.mode in ("RGB", "RGBA") and any(
        _DEEP.search(_rawmode(tile)) for tile in image.tile
    )


def read_deep_colour(
    image: ImageFile.ImageFile, open_again: Callable[[], ImageFile.ImageFile]
) -> np.ndarray:
    """Decode an image with 16-bit colour.

    Args:
      image: the open file, not loaded yet.
      open_again: opens the same file a second time.

    Returns:
      uint8 [height, width]: luma of ITU-R 601 over black, by the full scale of the colours.
    """
    rawmode = _rawmode(image.tile[0])
    transparent = image.info.get("transparency")
    if rawmode.startswith("LA"):
        # Four bytes per pixel, which fit the four bands that Pillow gave the image.
        _set_rawmode(image, "RGBA")
        image.load()
        samples = functools.partial(_pairs_of_bytes, image)
    else:
        base, order = rawmode.split(";16")
        if order == "N":
            order = "L" if sys.byteorder == "little" else "B"
        # Premultiplied samples ("RGBa") are over black already.
        base = base.upper()
        low = open_again()
        for half, byte_order in ((image, order), (low, _OTHER_ORDER[order])):
            _set_rawmode(half, f"{base};16{byte_order}")
            half.load()
        samples = functools.partial(_two_halves, image, low)
    colours = 1 if rawmode.startswith("LA") else 3
    table = full_scale_table(max(int(block[..., :colours].max()) for _, block in samples()))
    grey = np.empty((image.height, image.width), np.uint8)
    for place, block in samples():
        luma = _luma(block[..., :colours])
        if block.shape[-1] > colours and not rawmode.startswith("RGBa"):
            luma = (luma * block[..., colours] + _FULL // 2) // _FULL
        grey[place] = table[luma]
        if isinstance(transparent, tuple):
            grey[place][(block == transparent).all(-1)] = 0
    return grey


def _pairs_of_bytes(image: Image.Image) -> Iterator[tuple[Slices, np.ndarray]]:
    """Yield uint32 [h, w, 2] of an image whose four bands are two samples in big-endian order."""
    for place, box in iterate_boxes(image, _SIDE):
        values = np.asarray(image.crop(box)).astype(np.uint32)
        yield place, values[..., 0::2] << 8 | values[..., 1::2]


def _two_halves(high: Image.Image, low: Image.Image) -> Iterator[tuple[Slices, np.ndarray]]:
    """Yield uint32 [h, w, bands] of two images with the higher and the lower bytes."""
    for place, box in iterate_boxes(high, _SIDE):
        upper = np.asarray(high.crop(box)).astype(np.uint32)
        yield place, upper << 8 | np.asarray(low.crop(box))


def _luma(colours: np.ndarray) -> np.ndarray:
    """Return the luma, uint32 [h, w], of grey [h, w, 1] or RGB [h, w, 3] from 0 to 65535."""
    if colours.shape[-1] == 1:
        return colours[..., 0]
    return ((colours * _WEIGHTS).sum(-1, dtype=np.uint32) + np.uint32(1 << 15)) >> np.uint32(16)


def _rawmode(tile: Any) -> str:
    """Return Pillow's name of the layout of the samples in the file."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Make Pillow unpack the samples of an image that is not loaded yet as `rawmode`."""
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
