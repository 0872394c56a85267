"""Make one small picture, and common and uncommon files of it."""

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 44


@functools.cache
def picture() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH], 0 to 255, without symmetry: a bright slanted bar on a soft
    gradient.
    """
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    bar = 150 * np.exp(-(((x - 22 - 0.4 * y) / 6) ** 2))
    values = bar + 60 * x / WIDTH + 40 * (y / HEIGHT) ** 2
    return np.rint((values - values.min()) * (255 / np.ptp(values))).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """Encode a picture as a file with Pillow."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row, first column, and the distances of rows and columns, of each pass of interlacing."""


def png(
    rows: list[bytes],
    width: int,
    height: int,
    bits: int,
    colour: int,
    interlaced: bool = False,
    more: bytes = b"",
) -> bytes:
    """Make a PNG file of filtered rows, in kinds that no common writer writes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    packer = zlib.compressobj(1)
    data = b"".join(map(packer.compress, rows)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + more
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [h, w] as a PNG file in Adam7 order."""
    rows = [
        b"\0" + row.tobytes()
        for top, left, down, right in ADAM7
        for row in pixels[top::down, left::right]
        if row.size
    ]
    return png(rows, pixels.shape[1], pixels.shape[0], 8, 0, interlaced=True)


def patched(data: bytes, marker: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite the bytes at `offset` from the first occurrence of `marker`."""
    position = data.index(marker) + offset
    return data[:position] + new + data[position + len(new) :]


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"Adobe") - 4
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]
