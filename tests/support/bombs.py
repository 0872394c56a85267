"""Small files that make decoders take much memory or time, in endless variants of each kind."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from pydicom.encaps import encapsulate

from tests.support.dicom_files import dicom_file

Random = np.random.Generator


def comments(random: Random) -> bytes:
    """Markup comments without end, in which a backtracking expression would lose itself."""
    parts = [b"<!---->", b"<!--", b"-->", b"<?xml ?>", b" ", b"<!-- - -- -->", b"<!DOCTYPE"]
    chosen = random.choice(len(parts), int(random.integers(1, 4)), replace=False)
    unit = b"".join(parts[index] for index in chosen)
    return unit * int(random.integers(10, 20_000)) + bytes(random.integers(0, 256, 3, np.uint8))


def rle_delta(random: Random) -> bytes:
    """A compressed BMP file whose deltas skip most of a large picture."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    deltas = b"".join(
        bytes((0, 2, int(random.integers(256)), int(random.integers(256))))
        for _ in range(int(random.integers(1, 200)))
    )
    body = deltas + bytes([0, 1])
    width, height = (int(10 ** random.uniform(0, 7.5)) for _ in range(2))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 256)
    start = 14 + 40 + len(palette)
    header = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return header + info + palette + body


def shared_tags(random: Random) -> bytes:
    """A TIFF file whose many tags all point at the same bytes."""
    size, count = int(10 ** random.uniform(3, 6)), int(10 ** random.uniform(1, 3.5))
    side = int(random.integers(1, 64))
    tags = [(256, side), (257, side), (258, 8), (259, int(random.choice([1, 5, 7, 8, 32773])))]
    tags += [(262, 1), (273, 0), (277, 1), (278, side), (279, side * side)]
    behind = 8 + 2 + 12 * (len(tags) + count) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, behind)
        if tag == 273
        else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    kind = int(random.choice([1, 2, 7]))
    entries += b"".join(struct.pack("<HHII", 30_000 + i, kind, size, behind) for i in range(count))
    directory = struct.pack("<H", len(tags) + count) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(size)


def deflated(random: Random) -> bytes:
    """Deflated DICOM, with or without a preamble, that inflates to as much as 1.5 GB."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabytes = int(10 ** random.uniform(0, 3.2))
    stream = io.BytesIO()
    stream.write(squeeze.compress(struct.pack("<HH2sHI", 9, 0x1010, b"OB", 0, megabytes << 20)))
    for _ in range(megabytes):
        stream.write(squeeze.compress(bytes(1 << 20)))
    stream.write(squeeze.flush())
    value = b"1.2.840.10008.1.2.1.99"
    syntax = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(syntax)) + syntax
    preamble = bytes(128) + b"DICM" if random.random() < 0.5 else b""
    return preamble + meta + stream.getvalue()


def fill_bytes(random: Random) -> bytes:
    """A DICOM file whose codestream, behind fill bytes, has another size than its header says."""
    rows, columns = (int(10 ** random.uniform(1, 4.8)) for _ in range(2))
    syntax, marker = [("80", 0xF7), ("70", 0xC3), ("50", 0xC0)][int(random.integers(3))]
    frame = b"\xff\xd8" + b"\xff" * int(random.integers(0, 50))
    frame += struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, rows, columns, 1) + b"\1\x11\0"
    frame += b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(random.integers(0, 256, 100, np.uint8))
    fill = b"\xff" * int(random.integers(0, 3))
    return dicom_file(
        np.zeros((64, 64), np.uint8),
        f"1.2.840.10008.1.2.4.{syntax}",
        PixelData=encapsulate([fill + frame]),
    )


def lying_header(random: Random) -> bytes:
    """A PNG file whose header announces a size that its data do not have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    width, height = (int(10 ** random.uniform(0, 9)) for _ in range(2))
    depth, colour = [(8, 0), (16, 0), (1, 0), (8, 2), (16, 2), (8, 6)][int(random.integers(6))]
    interlaced = int(random.integers(2))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    content = zlib.compress(bytes(int(10 ** random.uniform(0, 7.5))), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def deep_nesting(random: Random) -> bytes:
    """DICOM sequences within sequences."""
    depth = int(10 ** random.uniform(0, 4.5))
    opened = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    opened += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    closing = closed * depth if random.random() < 0.5 else b""
    value = b"1.2.840.10008.1.2.1\0"
    syntax = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + opened * depth + closing


KINDS: dict[str, Callable[[Random], bytes]] = {
    maker.__name__: maker
    for maker in (
        comments,
        rle_delta,
        shared_tags,
        deflated,
        fill_bytes,
        lying_header,
        deep_nesting,
    )
}
"""Makers of one file each, by the name of their kind."""
