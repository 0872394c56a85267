"""Convert a picture that Pillow has decoded to grey pixels, upright, uint8 [height, width]."""

import struct
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from trainer.decoding.refusal import refuse
from trainer.decoding.sixteen_bits import full_scale_table
from trainer.decoding.tiles import iterate_tiles

TIFF_UNSIGNED, TIFF_SIGNED = 1, 2
"""Values of `sample_format`."""
_EXIF = b"Exif\0\0"
_EXIF_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""Types of EXIF tags that hold an integer, as `struct` names them."""
_TIFF_MIN_IS_WHITE = 0


def sample_format(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return the tag that says whether samples are unsigned, signed or float."""
    return image.tag_v2.get(SAMPLEFORMAT, (TIFF_UNSIGNED,))[0]


def convert_to_grey(image: Image.Image, transparent: int | None = None) -> np.ndarray:
    """Return a decoded picture as uint8 [height, width].

    It is converted by tiles, because every conversion copies and some widen to 4 bytes per pixel.
    `transparent` is the 16-bit grey value that becomes black.
    """
    grey = np.empty((image.height, image.width), np.uint8)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        table = _lookup_table(image)
        for place, tile in iterate_tiles(image):
            grey[place] = table(np.asarray(tile))
            if transparent is not None:
                grey[place][np.asarray(tile) == transparent] = 0
        if (
            isinstance(image, TiffImagePlugin.TiffImageFile)
            and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _TIFF_MIN_IS_WHITE
        ):
            np.subtract(255, grey, out=grey)
        return grey
    for place, tile in iterate_tiles(image):
        grey[place] = np.asarray(_flatten(tile))
    return grey


def _flatten(image: Image.Image) -> Image.Image:
    """Return an 8-bit picture in mode L: transparency over black, colour as luma of ITU-R 601."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("L", image.size)
        black.paste(image.convert("L"), mask=image.getchannel("A"))
        return black
    if image.mode == "LAB":
        return image.getchannel("L")
    return image if image.mode == "L" else image.convert("L")


def flatten_plain(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Return uint8 [height, width] and the mode of grey [height, width] or RGB [..., 3]."""
    if pixels.ndim == 2:
        return pixels, "grey"
    return np.asarray(Image.fromarray(pixels).convert("L")), "rgb"


def _lookup_table(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that maps the deep grey values of `image` to uint8."""
    if image.mode.startswith("I;16"):
        maximum = max(int(np.asarray(tile).max()) for _, tile in iterate_tiles(image))
        table = full_scale_table(maximum)
        return lambda values: table[values]
    low, high = np.inf, -np.inf
    for _, tile in iterate_tiles(image):
        values = np.asarray(tile)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if (
        low < 0
        and isinstance(image, TiffImagePlugin.TiffImageFile)
        and sample_format(image) == TIFF_UNSIGNED
    ):
        refuse(
            "unsupported",
            "expected values under 2,147,483,648, those of the TIFF file are larger",
        )
    if not low < high:
        return lambda values: np.zeros(values.shape, np.uint8)
    scale = 255 / (high - low)
    # In float64, in which the differences of float32 are finite.
    return lambda values: np.rint(
        (np.where(np.isfinite(values), values, low).astype(np.float64) - low) * scale
    ).astype(np.uint8)


def apply_exif_orientation(grey: np.ndarray, exif: bytes) -> np.ndarray:
    """Return `grey` in the orientation that EXIF data name; ignore damaged ones."""
    orientation = _read_orientation(exif)
    if orientation not in range(2, 9):
        return grey
    turned = Image.fromarray(grey)
    turned.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(turned))


def _read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 where they hold none or are damaged.

    Only this tag of the first directory is read (TIFF 6.0, section 2). Pillow reads all tags, which
    may be many that share a megabyte.
    """
    tiff = exif.removeprefix(_EXIF).removeprefix(_EXIF)  # some writers of PNG add it too
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _EXIF_ORIENTATION and kind in _INTEGERS:
                return int(struct.unpack_from(f"{order}{_INTEGERS[kind]}", tiff, entry + 8)[0])
    except struct.error:
        pass
    return 1
