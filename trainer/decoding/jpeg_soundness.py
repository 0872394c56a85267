"""Refuse JPEG streams that are damaged or take minutes to decode.

libjpeg goes on after most damage and fills the rest of the picture; Pillow and libtiff pass no
warning on. Each kind of damage has its test:

- more than a hundred scans, each of which is a pass over all pixels: `check_scans` counts them.
- no end marker: `complete` adds it if all rows are there, which it proves by decoding the stream
  with several continuations. If the picture depends on what follows, rows are missing.
- pixel data that are cut short or wrong inside the stream: `check_damage` decodes at an eighth of
  the size with a decoder that passes libjpeg's warnings on.

`sample_count` tests lossless and 12-bit frames, of which libjpeg reports no damage.
"""

import io
import itertools
import re
import zlib

import simplejpeg
from PIL import JpegImagePlugin

from trainer.decoding.jpeg_segments import (
    END_MARKER,
    SCAN_HEADER,
    find_pixels,
    has_end_marker,
    is_usual,
    iterate_segments,
)
from trainer.decoding.refusal import refuse
from trainer.decoding.tiles import iterate_tiles

_SCAN = re.compile(rb"\xff\xda\0(\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MAX_SCANS = 100
"""Encoders write a dozen at most. libtiff has this limit."""
_SEQUENTIAL = (0xC0, 0xC1)
# Continuations that differ in their first bit, and none at all, which libjpeg decodes to grey.
_TAILS = (b"", bytes(64), b"\xff\0" * 64, b"\xaa" * 64, b"\x55" * 64)
_FIRST_RESTART_MARKER = 0xD0
_RESTART_MARKER = re.compile(rb"\xff[\xd0-\xd7]")
_MAX_SURPLUS = 4  # bytes
_DAMAGE = "Corrupt JPEG data: "
"""The beginning of libjpeg's warning about missing or wrong pixel data."""
_PADDING = re.compile("extraneous bytes before marker 0xd9")


def check_scans(data: bytes) -> None:
    """Refuse a JPEG stream of so many scans that decoding it would take minutes."""
    if any(itertools.islice(_SCAN.finditer(data), _MAX_SCANS, None)):
        refuse(
            "unsupported",
            f"expected at most {_MAX_SCANS} scans, the JPEG data have more",
        )


def complete(data: bytes, name: str) -> bytes:
    """Return a JPEG stream with an end marker, which is added where nothing else is missing.

    Args:
      name: what a refusal calls the stream.

    Raises:
      RadiographError: rows are missing (truncated).
    """
    if has_end_marker(data):
        return data
    if not _has_all_rows(data):
        refuse("truncated", f"{name}: there is no end marker behind the pixels")
    return data + END_MARKER


def _has_all_rows(data: bytes) -> bool:
    """Return whether a JPEG stream without its end marker has all its rows.

    It has them if no continuation of the data changes the picture, and if without its last bytes
    that is no longer so: otherwise these bytes would only be padding behind the picture. The answer
    is False for a stream of several scans, of which some may miss.
    """
    components = {
        marker: data[start + 5 : start + 6] if marker in _SEQUENTIAL else data[start : start + 1]
        for marker, start, _ in iterate_segments(data)
        if marker in (*_SEQUENTIAL, SCAN_HEADER)
    }
    is_one_scan = data.find(b"\xff\xda", find_pixels(data)) < 0
    if len(components) != 2 or len(set(components.values())) != 1 or not is_one_scan:
        return False
    data = data.rstrip(b"\xff")  # half an end marker
    return _is_complete(data) and not _is_complete(data[:-_MAX_SURPLUS])


def _is_complete(data: bytes) -> bool:
    """Return whether the picture is the same whatever follows the data."""
    # Behind the last MCU of a restart interval, libjpeg skips everything but the next marker.
    restarts = len(_RESTART_MARKER.findall(data, find_pixels(data)))
    restart = b"\xff" + bytes([_FIRST_RESTART_MARKER + restarts % 8])
    tails = (*_TAILS, *(restart + tail for tail in _TAILS))
    checksums = {_checksum(data + tail + END_MARKER) for tail in tails}
    return len(checksums) == 1 and None not in checksums


def _checksum(data: bytes) -> int | None:
    """Return a checksum of the coloured pixels of a JPEG stream; None if it cannot be decoded."""
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            image.load()
            checksum = 0
            for _, tile in iterate_tiles(image):
                checksum = zlib.crc32(tile.tobytes(), checksum)
            return checksum
    except (OSError, SyntaxError, ValueError):
        return None


def check_damage(data: bytes, name: str) -> None:
    """Refuse a stream with an end marker of which libjpeg says that pixel data miss or are wrong.

    It fills such places with grey and goes on, and Pillow does not pass its warnings on. Bytes
    between the segments of the header and zeros ahead of the end marker do no harm.

    Args:
      name: what the refusal calls the stream.

    Raises:
      RadiographError: it is damaged (truncated).
    """
    if not is_usual(data):
        return
    start = find_pixels(data)
    header, pixels = _join_segments(data), data[start:]
    found = _find_warning(header + pixels)
    if _PADDING.search(found):
        kept = pixels[: pixels.find(END_MARKER)].rstrip(b"\0")
        found = _find_warning(header + kept + b"\0" * kept.endswith(b"\xff") + END_MARKER)
    if found.startswith(_DAMAGE):
        refuse("truncated", f"{name}: cut short or damaged, {found}")


def _join_segments(data: bytes) -> bytes:
    """Return the header of a JPEG stream up to its first scan, without bytes between segments."""
    segments = [
        bytes((0xFF, marker)) + data[start - 2 : end]
        for marker, start, end in iterate_segments(data)
    ]
    return data[:2] + b"".join(segments)


def _find_warning(data: bytes) -> str:
    """Return the last warning of libjpeg about a stream, or its error; empty where it has none."""
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        space = "CMYK" if space in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return str(error)
    return ""
