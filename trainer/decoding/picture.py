"""Decode PNG, JPEG, TIFF, BMP and WebP files to grey pixels with Pillow.

A file that is cut short, damaged or too large is refused. Pillow reports most damage by itself.
This module also checks what Pillow ignores, as the end of JPEG; `png` checks the rows and checksums
of PNG.
Peak memory stays under 1 GiB for any input.
"""

import io
import re
import struct

import numpy as np
from PIL import (
    BmpImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from trainer.decoding import jpeg, png, tiff, tiff_jpeg
from trainer.decoding.filled_memory import PATTERNS, fill_new_memory
from trainer.decoding.grey import apply_exif_orientation, convert_to_grey, flatten_plain
from trainer.decoding.jpeg_segments import iterate_segments, remove_exif
from trainer.decoding.jpeg_soundness import complete
from trainer.decoding.refusal import RadiographError, refuse
from trainer.decoding.sixteen_bits import has_deep_colour, read_deep_colour
from trainer.decoding.size_limits import check_memory, check_size

# Only these formats are parsed. Image.open would try others, and it has a process-wide warning of
# decompression bombs.
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": tiff.TiffFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
FORMATS = frozenset(_OPENERS)

MODES = {
    "1": "bilevel",
    "L": "grey",
    "I;16": "grey16",
    "I;16B": "grey16",
    "I": "grey32",
    "F": "float",
    "LA": "grey_alpha",
    "P": "palette",
    "PA": "palette_alpha",
    "RGB": "rgb",
    "RGBX": "rgb",
    "RGBA": "rgb_alpha",
    "RGBa": "rgb_alpha",
    "CMYK": "cmyk",
    "YCbCr": "ycbcr",
    "LAB": "lab",
}

_JPEG_LS = 0xF7
_SIDE_BYTES = 32  # per row: Pillow's pointers; per column: the run lengths of libtiff's fax decoder
# Messages of Pillow about a kind of file that it knows but does not decode.
_UNSUPPORTED = re.compile(
    r"unsupported|cannot handle|not supported|unknown pixel mode|unknown raw mode|not available"
    r"|unknown compression",
    re.I,
)
_QUOTATION = re.compile(r"['\"\\]")


def read(data: bytes, kind: str) -> tuple[np.ndarray, str, frozenset[str]]:
    """Decode a file of a format of `FORMATS`.

    Returns:
      uint8 [height, width] with the orientation applied, a value of `MODES`, and keys of
      `refusal.WARNINGS`.

    Raises:
      RadiographError: truncated, unsupported or too_large.
    """
    if kind == "JPEG" and any(marker == _JPEG_LS for marker, _, _ in iterate_segments(data)):
        refuse(
            "unsupported",
            "expected PNG, JPEG, TIFF, BMP, WebP or DICOM, the content is JPEG-LS",
        )
    try:
        if kind == "JPEG":
            data, exif = remove_exif(data)
        if kind == "PNG":
            data = png.select_chunks(data)
            png.check_header(data)
            if (plain := png.decode_plain(data)) is not None:
                return *flatten_plain(plain), frozenset()
        if kind == "TIFF":
            tiff.check_directories(data)
        if kind == "WEBP":  # Pillow allocates the canvas as it opens the file
            check_size(*_webp_size(data))
        with _OPENERS[kind](io.BytesIO(data)) as image:
            _check_header(image, kind)
            if kind == "PNG":
                png.check_rows(data)
            if kind == "JPEG":
                return _decode_jpeg(data, exif)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                return *_decode_twice(image, data), frozenset()
            return *_decode(image, data, kind), frozenset()
    except (RadiographError, MemoryError):
        raise
    except Exception as error:
        # Pillow's plug-ins raise a dozen types for damaged files; no list of them is complete.
        reason = "unsupported" if _UNSUPPORTED.search(str(error)) else "truncated"
        raise RadiographError(
            reason, f"the {kind} file cannot be decoded in full{_describe(error)}"
        ) from error


def _describe(error: Exception) -> str:
    """Return the message of an error of Pillow after a colon.

    A message with a quotation quotes the file, whose texts may name a patient: it is omitted.
    Messages of `struct` and of indexing are omitted too: they are about Python.
    """
    if isinstance(error.__cause__ or error, struct.error | LookupError):
        return ""
    message = " ".join(str(error).split())
    return f": {message}" if message and not _QUOTATION.search(message) else ""


def _check_header(image: ImageFile.ImageFile, kind: str) -> None:
    """Refuse an open file that is too large or holds several pictures."""
    check_size(image.height, image.width)
    check_memory(
        image.height * image.width * _bytes_per_pixel(image)
        + _SIDE_BYTES * (image.height + image.width)
    )
    if getattr(image, "is_animated", False):
        image.seek(1)  # which a damaged TIFF only seems to have
        refuse(
            "unsupported",
            f"expected one picture, the {kind} file holds several frames or pages",
        )


def _decode(image: ImageFile.ImageFile, data: bytes, kind: str) -> tuple[np.ndarray, str]:
    """Return the pixels, uint8 [height, width], and the mode of an open file."""
    mode = MODES.get(image.mode, image.mode)
    transparent = None
    if image.mode.startswith("I;16"):  # Pillow ignores the transparent value of 16-bit grey
        transparent = image.info.get("transparency")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.prepare(image)
    if has_deep_colour(image):
        grey = read_deep_colour(image, lambda: _OPENERS[kind](io.BytesIO(data)))
    elif isinstance(image, JpegImagePlugin.JpegImageFile):
        grey = jpeg.load(image, data)
    else:
        image.load()
        if isinstance(image, PngImagePlugin.PngImageFile):
            png.scale_transparent_value(image, data)
        if isinstance(image, BmpImagePlugin.BmpImageFile):
            _fill_empty_alpha(image)
        grey = convert_to_grey(image, transparent)
    # Pillow has applied the orientation of TIFF, and `remove_exif` has taken that of JPEG.
    exif = b"" if kind in ("TIFF", "JPEG") else image.info.get("exif", b"")
    return apply_exif_orientation(grey, exif), mode


def _fill_empty_alpha(image: BmpImagePlugin.BmpImageFile) -> None:
    """Make a fully transparent picture opaque: many programs leave BMP's alpha byte zero."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image.putalpha(255)


def _decode_jpeg(data: bytes, exif: bytes) -> tuple[np.ndarray, str, frozenset[str]]:
    """Return what `read` returns of a JPEG file, whose EXIF data come beside it."""
    ended = complete(data, "the JPEG file")
    with _OPENERS["JPEG"](io.BytesIO(ended)) as image:
        grey, mode = _decode(image, ended, "JPEG")
    notes = frozenset() if ended is data else frozenset({"no_end_marker"})
    return apply_exif_orientation(grey, exif), mode, notes


def _decode_twice(image: TiffImagePlugin.TiffImageFile, data: bytes) -> tuple[np.ndarray, str]:
    """Decode an open TIFF file; refuse it where its data do not make the whole picture.

    libtiff reports no error then, see `filled_memory`.
    """
    if not tiff.is_compressed(image):
        return _decode(image, data, "TIFF")
    tiff_jpeg.check(image, data)
    one, two = PATTERNS
    with fill_new_memory(one):
        grey, mode = _decode(image, data, "TIFF")
    with fill_new_memory(two), _OPENERS["TIFF"](io.BytesIO(data)) as again:
        repeated, _ = _decode(again, data, "TIFF")
    if not np.array_equal(grey, repeated):
        refuse("truncated", "the data of the TIFF file do not make the whole picture")
    return grey, mode


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the height and width that the first chunk of a WebP file announces, else 0."""
    kind, head = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        width = height = 0
    return height, width


def _bytes_per_pixel(image: ImageFile.ImageFile) -> int:
    """Return an upper bound of the bytes per pixel that decoding takes, from the header alone."""
    held = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    if has_deep_colour(image):
        held = 8  # two pictures, one of the higher and one of the lower bytes
    if isinstance(
        image, JpegImagePlugin.JpegImageFile
    ):  # progressive: libjpeg holds all coefficients, 2 bytes each
        return (4 if image.layers == 4 else 1) + 2 * image.layers
    if isinstance(
        image, WebPImagePlugin.WebPImageFile
    ):  # libwebp's two canvases, Pillow's copy, the picture
        return 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return held + tiff.side_bytes_per_pixel(image)
    return held
