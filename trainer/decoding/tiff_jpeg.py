"""Check JPEG data in TIFF files: libtiff does not pass on warnings about damage."""

from collections.abc import Iterator

from PIL import ExifTags, TiffImagePlugin
from PIL.TiffImagePlugin import (
    COMPRESSION,
    JPEGTABLES,
    ROWSPERSTRIP,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
)

from trainer.decoding.jpeg_segments import (
    END_MARKER,
    SCAN_HEADER,
    has_end_marker,
    iterate_segments,
    read_frame_header,
)
from trainer.decoding.jpeg_soundness import check_damage, check_scans, complete

_OLD_JPEG, _JPEG = 6, 7
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
    if tags.get(COMPRESSION) == _JPEG:
        height, width = _strip_size(image)
        for stream in _list_streams(tags, data):
            if _fits(stream, height, width):
                check_scans(stream)
                check_damage(complete(stream, _NAME), _NAME)
    if tags.get(COMPRESSION) == _OLD_JPEG:
        start = tags.get(ExifTags.Base.JpegIFOffset, 0)
        stream = data[start : start + tags.get(ExifTags.Base.JpegIFByteCount, 0)]
        has_scan = any(marker == SCAN_HEADER for marker, _, _ in iterate_segments(stream))
        if has_scan and has_end_marker(stream) and _fits(stream, image.height, image.width):
            check_scans(stream)
            check_damage(stream, _NAME)


def _strip_size(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Return the height and width that a strip or tile has at most."""
    tags = image.tag_v2
    if TILEWIDTH in tags:
        return tags.get(TILELENGTH, 0), tags[TILEWIDTH]
    return min(tags.get(ROWSPERSTRIP, image.height), image.height), image.width


def _list_streams(tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes) -> Iterator[bytes]:
    """Yield the streams of the strips or tiles that have a length, each with its tables."""
    tables = tags.get(JPEGTABLES, b"").removesuffix(END_MARKER)
    if STRIPOFFSETS in tags:
        places, lengths = tags[STRIPOFFSETS], tags.get(STRIPBYTECOUNTS, ())
    else:
        places, lengths = tags.get(TILEOFFSETS, ()), tags.get(TILEBYTECOUNTS, ())
    if len(places) != len(lengths):
        return
    for place, length in zip(places, lengths, strict=True):
        stream = data[place : place + length]
        if stream:
            yield tables + stream[2:] if tables else stream


def _fits(stream: bytes, height: int, width: int) -> bool:
    """Return whether a stream announces a picture of no more than this size."""
    header = read_frame_header(stream)
    return header is not None and header[2] <= height and header[3] <= width
