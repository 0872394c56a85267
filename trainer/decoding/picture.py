"""Decode PNG, JPEG, TIFF, BMP and WebP files to grey pixels with Pillow.

A file that is cut short, damaged or too large is refused. Pillow reports most damage by itself.
This module also checks what Pillow ignores, as the end of JPEG; `png` checks the checksums of PNG.
Peak memory stays under 1 GiB for any input.
"""

import io
import re
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from trainer.decoding import png
from trainer.decoding.filled_memory import PATTERNS, filled
from trainer.decoding.jpeg_stream import (
    END_MARKER,
    check_scans,
    has_all_rows,
    has_end_marker,
    jpeg_segments,
)
from trainer.decoding.refusal import RadiographError, check_memory, check_size, refuse
from trainer.decoding.sixteen_bits import full_scale_table, has_deep_colour, read_deep_colour
from trainer.decoding.tiles import iterate_tiles

# Only these formats are parsed. Image.open would try others, and it has a process-wide warning of
# decompression bombs.
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
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

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 259, 262, 277
_TIFF_PLANES, _TIFF_SAMPLE_FORMAT = 284, 339
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323
_TIFF_MIN_IS_WHITE = 0
_TIFF_PLANE_BY_PLANE = 2
_TIFF_UNSIGNED, _TIFF_SIGNED = 1, 2
_TIFF_UNCOMPRESSED = 1
_TIFF_JPEG = (6, 7)
# Lossless and differential processes: Pillow opens them, libjpeg decodes none.
_JPEG_NOT_DECODED = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_LS = 0xF7
_SIDE_BYTES = 32  # per row: Pillow's pointers; per column: the run lengths of libtiff's fax decoder
# Messages of Pillow about a kind of file that it knows but does not decode. A bare number is the
# compression of a TIFF file.
_UNSUPPORTED = re.compile(
    r"unsupported|cannot handle|not supported|unknown pixel mode|not available"
    r"|unknown compression|^\d+$",
    re.I,
)

_QUOTATION = re.compile(r"['\"\\]")


def read(data: bytes, kind: str) -> tuple[np.ndarray, str, frozenset[str]]:
    """Decode a file of a format of `FORMATS`.

    Returns:
      uint8 [height, width] with the orientation applied, a value of `MODES`, and keys of
      `refusal.WARNINGS`.

    Raises:
      RadiographError with truncated, unsupported or too_large.
    """
    if kind == "JPEG" and any(marker == _JPEG_LS for marker, _, _ in jpeg_segments(data)):
        refuse(
            "unsupported",
            "expected PNG, JPEG, TIFF, BMP, WebP or DICOM, the content is JPEG-LS",
        )
    try:
        if kind == "PNG":
            data = png.select_chunks(data)
            if (plain := png.decode_plain(data)) is not None:
                return *_flatten_plain(plain), frozenset()
        if kind == "WEBP":  # Pillow allocates the canvas as it opens the file
            check_size(*_webp_size(data))
        with _OPENERS[kind](io.BytesIO(data)) as image:
            _check_header(image, kind)
            if kind == "JPEG" and not has_end_marker(data):
                if not has_all_rows(data):
                    refuse("truncated", "the JPEG file has no end marker after its pixel data")
                with _OPENERS[kind](io.BytesIO(data + END_MARKER)) as ended:
                    return *_decode(ended, data, kind), frozenset({"no_end_marker"})
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
    """
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
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _prepare_jpeg(image, data)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_samples(image)
    if has_deep_colour(image):
        grey = read_deep_colour(image, lambda: _OPENERS[kind](io.BytesIO(data)))
    else:
        image.load()
        grey = _grey(image, transparent)
    if kind == "TIFF":  # Pillow has applied the orientation already
        return grey, mode
    return _upright(grey, image), mode


def _decode_twice(image: TiffImagePlugin.TiffImageFile, data: bytes) -> tuple[np.ndarray, str]:
    """Decode an open TIFF file; refuse it where its data do not make the whole picture.

    libtiff reports no error then, see `filled_memory`.
    """
    if image.tag_v2.get(_TIFF_COMPRESSION, _TIFF_UNCOMPRESSED) == _TIFF_UNCOMPRESSED:
        return _decode(image, data, "TIFF")
    one, two = PATTERNS
    with filled(one):
        grey, mode = _decode(image, data, "TIFF")
    with filled(two), _OPENERS["TIFF"](io.BytesIO(data)) as again:
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


def _prepare_jpeg(image: JpegImagePlugin.JpegImageFile, data: bytes) -> None:
    """Make Pillow decode an open JPEG file to its luma plane, and CMYK in the right polarity.

    Raises RadiographError for what libjpeg does not decode and for too many scans.
    """
    check_scans(data)
    for marker, _, _ in jpeg_segments(data):
        if marker in _JPEG_NOT_DECODED:
            refuse("unsupported", "no decoder for lossless and differential JPEG")
    image.draft("L", image.size)
    if image.mode == "CMYK" and "adobe" not in image.info:
        # Pillow treats every CMYK JPEG as one of Adobe's, which are stored inverted.
        image.tile = [tile._replace(args=("CMYK", "")) for tile in image.tile]


def _check_samples(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse kinds of samples that Pillow mistakes for others, so that the picture is wrong."""
    tags = image.tag_v2
    bits = max(tags.get(_TIFF_BITS, (1,)))
    if (
        bits == 16
        and tags.get(_TIFF_SAMPLES, 1) > 1
        and tags.get(_TIFF_PLANES) == _TIFF_PLANE_BY_PLANE
    ):
        refuse(
            "unsupported",
            "expected 8-bit planes or 16-bit pixels, the TIFF file has 16-bit planes",
        )
    if bits == 8 and _sample_format(image) == _TIFF_SIGNED:
        refuse(
            "unsupported",
            "expected unsigned samples of 8 bits, those of the TIFF file are signed",
        )


def _sample_format(image: TiffImagePlugin.TiffImageFile) -> int:
    return image.tag_v2.get(_TIFF_SAMPLE_FORMAT, (_TIFF_UNSIGNED,))[0]


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
        tags = image.tag_v2
        samples = tags.get(_TIFF_SAMPLES, 1)
        strip = samples * -(-max(tags.get(_TIFF_BITS, (1,))) // 8)
        coefficients = 2 * samples if tags.get(_TIFF_COMPRESSION) in _TIFF_JPEG else 0
        check_size(tags.get(_TIFF_TILE_HEIGHT, 1), tags.get(_TIFF_TILE_WIDTH, 1))
        return held + strip + coefficients + 1  # the grey picture of the first decoding
    return held


def _grey(image: Image.Image, transparent: int | None = None) -> np.ndarray:
    """Return a decoded picture as uint8 [height, width].

    It is converted by tiles, because every conversion copies and some widen to 4 bytes per pixel.
    `transparent` is the 16-bit grey value that becomes black.
    """
    grey = np.empty((image.height, image.width), np.uint8)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        table = _ramp(image)
        for place, tile in iterate_tiles(image):
            grey[place] = table(np.asarray(tile))
            if transparent is not None:
                grey[place][np.asarray(tile) == transparent] = 0
        if (
            isinstance(image, TiffImagePlugin.TiffImageFile)
            and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _TIFF_MIN_IS_WHITE
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


def _flatten_plain(pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Return uint8 [height, width] and the mode of grey [height, width] or RGB [..., 3]."""
    if pixels.ndim == 2:
        return pixels, "grey"
    return np.asarray(Image.fromarray(pixels).convert("L")), "rgb"


def _ramp(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
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
        and _sample_format(image) == _TIFF_UNSIGNED
    ):
        refuse(
            "unsupported",
            "expected values under 2,147,483,648, those of the TIFF file are larger",
        )
    if not low < high:
        return lambda values: np.zeros(values.shape, np.uint8)
    scale = 255 / (high - low)
    return lambda values: np.rint(
        (np.where(np.isfinite(values), values, low) - low) * scale
    ).astype(np.uint8)


def _upright(grey: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return `grey` in the EXIF orientation of `image`; ignore damaged EXIF data."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return grey
    if orientation not in range(2, 9):
        return grey
    turned = Image.fromarray(grey)
    turned.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(turned))
