"""The structure of a JPEG stream: its segments, its scans, its end."""

import io
import itertools
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import JpegImagePlugin

from trainer.decoding.refusal import refuse
from trainer.decoding.tiles import iterate_tiles

END_MARKER = b"\xff\xd9"
_SCAN = re.compile(rb"\xff\xda\0(\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MAX_SCANS = 100
"""Encoders write a dozen at most, and each costs a pass over all pixels. libtiff has this limit.
"""
_SEQUENTIAL = (0xC0, 0xC1)
_SCAN_HEADER = 0xDA
_ALONE = (0x00, 0x01, *range(0xD0, 0xD8))
"""No marker, and markers that no length follows."""
_ENDS = (0xD8, 0xD9)
_JFIF, _EXIF, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Those of JPEG, and that of JPEG-LS."""
_USUAL = {(marker, 8) for marker in (0xC0, 0xC1, 0xC2)}
"""Frame header and bits a sample of what nearly all encoders write."""
_WITH_LUMA = ("Gray", "YCbCr")
# Continuations that differ in their first bit, and none at all, which libjpeg decodes to grey.
_TAILS = (b"", bytes(64), b"\xff\0" * 64, b"\xaa" * 64, b"\x55" * 64)
_FIRST_RESTART_MARKER = 0xD0
_RESTART_MARKER = re.compile(rb"\xff[\xd0-\xd7]")
_MAX_SURPLUS = 4  # bytes
_REPLACED_BYTES = 8
_MIXED = b"\x1b\x4e\x72\x39\x6c\x2d\x93\xc6"  # code words of all kinds, of both signs
_DAMAGE = "Corrupt JPEG data: "
"""The beginning of libjpeg's warning about missing or wrong pixel data."""
_PADDING = re.compile("extraneous bytes before marker 0xd9")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment of a JPEG or JPEG-LS stream.

    The first scan header is the last of them. Bytes between segments are skipped, as by libjpeg.
    """
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1 : position + 2]
        if marker == b"\xff":  # a fill byte
            position += 1
            continue
        if marker and marker[0] in _ALONE:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if not marker or marker[0] in _ENDS or length < 2:
            return
        yield marker[0], position + 4, position + 2 + length
        if marker[0] == _SCAN_HEADER:
            return
        position += 2 + length


def read_frame_header(data: bytes) -> tuple[int, int, int, int] | None:
    """Return marker, bits a sample, height and width of the frame of a JPEG or JPEG-LS stream.

    None stands for a stream without a complete frame header, or with several: no decoder takes it.
    """
    found = [
        (marker, *struct.unpack_from(">BHH", data, start))
        for marker, start, _ in jpeg_segments(data)
        if marker in _FRAME_HEADERS and len(data) >= start + 5
    ]
    return found[0] if len(found) == 1 else None


def remove_exif(data: bytes) -> tuple[bytes, bytes]:
    """Return a JPEG stream whose segments of EXIF are comments, and what they held.

    Pillow joins them too, and reads all tags, which may be many that share a megabyte.
    """
    changed, parts = bytearray(), []
    for marker, start, end in jpeg_segments(data):
        if marker == _EXIF and data[start : start + 6] == b"Exif\0\0":
            changed = changed or bytearray(data)
            changed[start - 3] = _COMMENT
            parts.append(data[start + 6 : end])
    return bytes(changed) or data, b"".join(parts)


def read_adobe_transform(data: bytes) -> int | None:
    """Return the colour transform that Adobe's segment names; None where there is no such segment.

    0 stands for none, 1 for YCbCr, 2 for YCCK (Adobe Technical Note 5116). A segment of JFIF, which
    stands for YCbCr, takes precedence, as in libjpeg.
    """
    transform = None
    for marker, start, end in jpeg_segments(data):
        if marker == _JFIF and data[start : start + 5] == b"JFIF\0":
            return None
        if marker == _ADOBE and data[start : start + 5] == b"Adobe" and end - start >= 12:
            transform = data[start + 11]
    return transform


def check_scans(data: bytes) -> None:
    """Refuse a JPEG stream of so many scans that decoding it would take minutes."""
    if any(itertools.islice(_SCAN.finditer(data), _MAX_SCANS, None)):
        refuse(
            "unsupported",
            f"expected at most {_MAX_SCANS} scans, the JPEG data have more",
        )


def has_end_marker(data: bytes) -> bool:
    """Return whether an end marker follows the first scan header of a JPEG stream.

    libjpeg decodes a stream without one too, and a tail of zero bytes as if it were pixels.
    """
    return data.find(END_MARKER, _pixels_start(data)) >= 0


def _pixels_start(data: bytes) -> int:
    """Return where the first scan of a JPEG stream starts."""
    return max((end for _, _, end in jpeg_segments(data)), default=0)


def complete(data: bytes, name: str) -> bytes:
    """Return a JPEG stream with an end marker, which is added where nothing else is missing.

    Args:
      name: what a refusal calls the stream.

    Raises:
      RadiographError: rows are missing (truncated).
    """
    if has_end_marker(data):
        return data
    if not has_all_rows(data):
        refuse("truncated", f"{name}: there is no end marker behind the pixels")
    return data + END_MARKER


def decode_luma(data: bytes) -> np.ndarray | None:
    """Decode a sound stream in grey or YCbCr of a usual process: uint8 [height, width].

    The values are those of Pillow's `draft("L")`. None stands for any other stream, also for one of
    which libjpeg warns: `check_damage` tells why.
    """
    if not _is_usual(data):
        return None
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data)
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0] if space in _WITH_LUMA else None
    except ValueError:
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
    if not _is_usual(data):
        return
    start = _pixels_start(data)
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
        bytes((0xFF, marker)) + data[start - 2 : end] for marker, start, end in jpeg_segments(data)
    ]
    return data[:2] + b"".join(segments)


def _is_usual(data: bytes) -> bool:
    """Return whether a stream is baseline, extended or progressive, with 8 bits a sample.

    libjpeg crashes as it makes lossless streams smaller.
    """
    header = read_frame_header(data)
    return header is not None and header[:2] in _USUAL


def _find_warning(data: bytes) -> str:
    """Return the last warning of libjpeg about a stream, or its error; empty where it has none."""
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        space = "CMYK" if space in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return str(error)
    return ""


def replace_last_bytes(data: bytes) -> Iterator[bytes]:
    """Yield streams in which other bytes stand in the place of the last eight or a few more.

    The first bit of the new bytes differs from that of the old ones. So the sample that this bit
    belongs to changes. A sample has at least one bit, so only the last samples can change. The
    streams differ in the new bytes, since a decoder may refuse some of them. There are none for a
    stream that is very short or has several scans, whose last bytes don't belong to the last
    samples of the picture.
    """
    start = _pixels_start(data)
    end = data.find(END_MARKER, start)
    cut = end - _REPLACED_BYTES
    while data[cut - 1 : cut] == b"\xff":  # The byte behind it belongs to it.
        cut -= 1
    if cut <= start or data.find(b"\xff\xda", start) >= 0:
        return
    for turn in range(len(_MIXED)):
        mixed = (_MIXED[turn:] + _MIXED[:turn]) * 2
        flip = 0xFF if (data[cut] ^ mixed[0]) < 0x80 else 0
        yield data[:cut] + bytes(byte ^ flip for byte in mixed[: end - cut]) + END_MARKER


def has_all_rows(data: bytes) -> bool:
    """Return whether a JPEG stream without its end marker has all its rows.

    It has them if no continuation of the data changes the picture, and if without its last bytes
    that is no longer so: otherwise these bytes would only be padding behind the picture. The answer
    is False for a stream of several scans, of which some may miss.
    """
    components = {
        marker: data[start + 5 : start + 6] if marker in _SEQUENTIAL else data[start : start + 1]
        for marker, start, _ in jpeg_segments(data)
        if marker in (*_SEQUENTIAL, _SCAN_HEADER)
    }
    is_one_scan = data.find(b"\xff\xda", _pixels_start(data)) < 0
    if len(components) != 2 or len(set(components.values())) != 1 or not is_one_scan:
        return False
    data = data.rstrip(b"\xff")  # half an end marker
    return _is_complete(data) and not _is_complete(data[:-_MAX_SURPLUS])


def _is_complete(data: bytes) -> bool:
    """Return whether the picture is the same whatever follows the data."""
    # Behind the last MCU of a restart interval, libjpeg skips everything but the next marker.
    restarts = len(_RESTART_MARKER.findall(data, _pixels_start(data)))
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
