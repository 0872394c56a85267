"""Check JPEG data in TIFF files: libtiff does not pass on warnings about damage."""

import struct
from collections.abc import Iterator

from PIL import TiffImagePlugin

from trainer.decoding.jpeg_stream import (
    END_MARKER,
    check_damage,
    check_scans,
    complete,
    has_end_marker,
    jpeg_segments,
)

_COMPRESSION, _TABLES, _OLD_STREAM, _OLD_LENGTH, _ROWS = 259, 347, 513, 514, 278
_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of the places and the lengths."""
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_OLD_JPEG, _JPEG = 6, 7
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_NAME = "the JPEG data of the TIFF file"


def check(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuse an open file whose JPEG data are cut short or damaged.

    Each strip or tile is a JPEG stream, whose tables may stand apart (TIFF Technical Note 2). For
    the old kind (TIFF 6.0, section 22), only a stream that is complete by itself is checked. What
    libtiff takes in another way is left to it: a strip without a length, or a stream that announces
    a larger picture than its strip.

    Raises:
      RadiographError: truncated, or unsupported for too many scans.
    """
    tags = image.tag_v2
    if tags.get(_COMPRESSION) == _JPEG:
        height, width = _strip_size(image)
        for stream in _list_streams(tags, data):
            if _fits(stream, height, width):
                check_scans(stream)
                check_damage(complete(stream, _NAME), _NAME)
    if tags.get(_COMPRESSION) == _OLD_JPEG:
        start = tags.get(_OLD_STREAM, 0)
        stream = data[start : start + tags.get(_OLD_LENGTH, 0)]
        has_scan = any(marker == _SCAN for marker, _, _ in jpeg_segments(stream))
        if has_scan and has_end_marker(stream) and _fits(stream, image.height, image.width):
            check_scans(stream)
            check_damage(stream, _NAME)


def _strip_size(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Return the height and width that a strip or tile has at most."""
    tags = image.tag_v2
    if _TILE_WIDTH in tags:
        return tags.get(_TILE_HEIGHT, 0), tags[_TILE_WIDTH]
    return min(tags.get(_ROWS, image.height), image.height), image.width


def _list_streams(tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes) -> Iterator[bytes]:
    """Yield the streams of the strips or tiles that have a length, each with its tables."""
    tables = tags.get(_TABLES, b"").removesuffix(END_MARKER)
    places, lengths = (tags.get(tag, ()) for tag in (_STRIPS if _STRIPS[0] in tags else _TILES))
    if len(places) != len(lengths):
        return
    for place, length in zip(places, lengths, strict=True):
        stream = data[place : place + length]
        if stream:
            yield tables + stream[2:] if tables else stream


def _fits(stream: bytes, height: int, width: int) -> bool:
    """Return whether a stream announces a picture of no more than this size."""
    for marker, start, _ in jpeg_segments(stream):
        if marker in _FRAME_HEADERS and len(stream) >= start + 5:
            high, wide = struct.unpack_from(">HH", stream, start + 1)
            return bool(high <= height and wide <= width)
    return False
