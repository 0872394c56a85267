"""Parse a JPEG or JPEG-LS stream: its segments, its frame header, its end."""

import struct
from collections.abc import Iterator

END_MARKER = b"\xff\xd9"
SCAN_HEADER = 0xDA
_ALONE = (0x00, 0x01, *range(0xD0, 0xD8))
"""No marker, and markers that no length follows."""
_ENDS = (0xD8, 0xD9)
_JFIF, _EXIF, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Those of JPEG, and that of JPEG-LS."""
_USUAL = {(marker, 8) for marker in (0xC0, 0xC1, 0xC2)}
"""Frame header and bits a sample of what nearly all encoders write."""


def iterate_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
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
        if marker[0] == SCAN_HEADER:
            return
        position += 2 + length


def read_frame_header(data: bytes) -> tuple[int, int, int, int] | None:
    """Return marker, bits a sample, height and width of the frame of a JPEG or JPEG-LS stream.

    None stands for a stream without a complete frame header, or with several: no decoder takes it.
    """
    found = [
        (marker, *struct.unpack_from(">BHH", data, start))
        for marker, start, _ in iterate_segments(data)
        if marker in _FRAME_HEADERS and len(data) >= start + 5
    ]
    return found[0] if len(found) == 1 else None


def is_usual(data: bytes) -> bool:
    """Return whether a stream is baseline, extended or progressive, with 8 bits a sample.

    libjpeg crashes as it makes lossless streams smaller.
    """
    header = read_frame_header(data)
    return header is not None and header[:2] in _USUAL


def remove_exif(data: bytes) -> tuple[bytes, bytes]:
    """Return a JPEG stream whose segments of EXIF are comments, and what they held.

    Pillow joins them too, and reads all tags, which may be many that share a megabyte.
    """
    changed, parts = bytearray(), []
    for marker, start, end in iterate_segments(data):
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
    for marker, start, end in iterate_segments(data):
        if marker == _JFIF and data[start : start + 5] == b"JFIF\0":
            return None
        if marker == _ADOBE and data[start : start + 5] == b"Adobe" and end - start >= 12:
            transform = data[start + 11]
    return transform


def has_end_marker(data: bytes) -> bool:
    """Return whether an end marker follows the first scan header of a JPEG stream.

    libjpeg decodes a stream without one too, and a tail of zero bytes as if it were pixels.
    """
    return data.find(END_MARKER, find_pixels(data)) >= 0


def find_pixels(data: bytes) -> int:
    """Return where the first scan of a JPEG stream starts."""
    return max((end for _, _, end in iterate_segments(data)), default=0)
