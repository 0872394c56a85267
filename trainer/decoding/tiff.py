"""Check TIFF files where Pillow doesn't, and correct how it reads some of them.

Pillow loads every tag of a directory, whatever the picture needs. Tags may share their bytes, so
that a small file makes it load gigabytes.
"""

import re
import struct
from collections.abc import Iterator

from PIL import ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    COMPRESSION,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PREDICTOR,
    SAMPLESPERPIXEL,
    TILELENGTH,
    TILEWIDTH,
)

from trainer.decoding.grey import TIFF_SIGNED, sample_format
from trainer.decoding.refusal import refuse
from trainer.decoding.size_limits import check_memory, check_size

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
"""Bytes of each type of value (TIFF 6.0, section 2, and BigTIFF)."""
_NESTED = (330, 34665, 34853, 40965)
"""Tags whose value is the place of another directory, which Pillow loads too."""
_MOST_TAGS = 200_000
_COPIES = 2  # the bytes of a tag and its values

_PLANE_BY_PLANE = 2
_UNCOMPRESSED = 1
_JPEG = (6, 7)
_DECODED = TiffImagePlugin.COMPRESSION_INFO.keys() - {50001}
_NOT_DECODED = {
    **dict.fromkeys((9, 10, 34661), "JBIG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
    32766: "NeXT",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    50001: "WebP",
}
"""Names of other compressions (libtiff's `tiff.h`)."""
_YCBCR = 6
_FLOATING_POINT = 3
_BIG_ENDIAN = re.compile(r"(;\d+)B")
"""In Pillow's names of sample formats, such as `I;16BS`."""


class TiffFile(TiffImagePlugin.TiffImageFile):
    """Refuses a file of an unknown compression by its name; Pillow raises its bare number."""

    def _setup(self) -> None:
        compression = self.tag_v2.get(COMPRESSION, _UNCOMPRESSED)
        if compression not in _DECODED:
            name = _NOT_DECODED.get(compression, "unknown")
            refuse(
                "unsupported",
                "expected no compression or one such as LZW, Deflate or JPEG, the TIFF file has "
                f"compression {compression} ({name})",
            )
        super()._setup()


def check_directories(data: bytes) -> None:
    """Refuse a TIFF file whose tags take more than the memory limit, or that Pillow mistakes.

    Directories beyond the end of the file are left to Pillow.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    if is_big and order == ">":
        refuse(
            "unsupported",
            "expected TIFF or little-endian BigTIFF, the file is BigTIFF in big-endian order",
        )
    try:
        first = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, 8 if is_big else 4)
        waiting, seen, needed, tags = list(first), set(), 0, 0
        while waiting:
            place = waiting.pop()
            if place in seen or not place:
                continue
            seen.add(place)
            for tag, size, value in _read_entries(data, place, order, is_big):
                tags += 1
                needed += min(size, len(data)) * _COPIES
                check_memory(needed)
                if tags > _MOST_TAGS:
                    refuse("unsupported", f"expected at most {_MOST_TAGS:,} tags in the TIFF file")
                if tag in _NESTED:
                    waiting.append(value)
            waiting.append(_read_next(data, place, order, is_big))
    except struct.error:
        return


def _read_entries(
    data: bytes, place: int, order: str, is_big: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield the tag, the size in bytes and the value or its place of each entry of a directory."""
    head, entry = (f"{order}Q", f"{order}HHQQ") if is_big else (f"{order}H", f"{order}HHII")
    (count,) = struct.unpack_from(head, data, place)
    for index in range(count):
        at = place + struct.calcsize(head) + index * struct.calcsize(entry)
        tag, kind, number, value = struct.unpack_from(entry, data, at)
        yield tag, number * _SIZES.get(kind, 0), value


def _read_next(data: bytes, place: int, order: str, is_big: bool) -> int:
    """Return the place of the directory behind another; 0 if there is none."""
    head, entry = (f"{order}Q", 20) if is_big else (f"{order}H", 12)
    (count,) = struct.unpack_from(head, data, place)
    at = place + struct.calcsize(head) + count * entry
    return int(struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, at)[0])


def is_compressed(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Return whether the pixels of an open file are compressed."""
    return image.tag_v2.get(COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED


def side_bytes_per_pixel(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return an upper bound of the bytes per pixel that decoding takes beside Pillow's picture.

    Raises:
      RadiographError: too_large, for the size of a tile.
    """
    tags = image.tag_v2
    samples = tags.get(SAMPLESPERPIXEL, 1)
    strip = samples * -(-max(tags.get(BITSPERSAMPLE, (1,))) // 8)
    coefficients = 2 * samples if tags.get(COMPRESSION) in _JPEG else 0
    check_size(tags.get(TILELENGTH, 1), tags.get(TILEWIDTH, 1))
    return strip + coefficients + 1  # the grey picture of the first decoding


def prepare(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make Pillow decode an open file as it is meant, before its pixels are loaded.

    Raises:
      RadiographError: unsupported, for kinds of samples that Pillow mistakes for others.
    """
    _check_samples(image)
    _take_native_order(image)
    _take_short_palette(image)


def _check_samples(image: TiffImagePlugin.TiffImageFile) -> None:
    tags = image.tag_v2
    bits = max(tags.get(BITSPERSAMPLE, (1,)))
    samples = tags.get(SAMPLESPERPIXEL, 1)
    has_planes = samples > 1 and tags.get(PLANAR_CONFIGURATION) == _PLANE_BY_PLANE
    if has_planes and bits == 16:
        refuse(
            "unsupported",
            "expected 8-bit planes or 16-bit pixels, the TIFF file has 16-bit planes",
        )
    if has_planes and samples == 2:
        refuse(
            "unsupported",
            "expected pixels of grey and alpha, the TIFF file has a plane of each",
        )
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _YCBCR and not is_compressed(image):
        refuse(
            "unsupported",
            "expected grey or RGB pixels, the uncompressed TIFF file has YCbCr",
        )
    # TIFF Technical Note 3 puts the highest byte of a sample first. In big-endian files, libtiff
    # 4.5 puts the lowest one first, and nothing in the file tells which it was.
    if (
        tags.prefix == TiffImagePlugin.MM
        and tags.get(PREDICTOR) == _FLOATING_POINT
        and is_compressed(image)
    ):
        refuse(
            "unsupported",
            "expected little-endian order with the floating-point predictor, the TIFF file is "
            "big-endian",
        )
    if bits == 8 and sample_format(image) == TIFF_SIGNED:
        refuse(
            "unsupported",
            "expected unsigned samples of 8 bits, those of the TIFF file are signed",
        )


def _take_native_order(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make Pillow take the samples that libtiff decodes as they are.

    libtiff returns them in the order of the machine. For some kinds of samples Pillow swaps their
    bytes again.
    """
    image.tile = [
        tile._replace(args=(_BIG_ENDIAN.sub(r"\1N", tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]


def _take_short_palette(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make Pillow take a palette with levels up to 255 as 8-bit levels.

    Palettes of TIFF have 16 bits, which some programs overlook when they write one. libtiff's own
    tools (`tiff2rgba`) recognise such palettes in the same way.
    """
    levels = image.tag_v2.get(COLORMAP, ())
    if image.mode in ("P", "PA") and levels and max(levels) <= 255:
        image.palette = ImagePalette.raw("RGB;L", bytes(levels))
