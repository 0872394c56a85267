"""Read the chunks of a PNG file, and decode the plain kind of PNG fast.

Pillow ignores the checksums of the pixels, rows that are missing at the bottom and the end of the
file, so that these are checked here.
Pictures of 8 bits, grey or RGB, which most files are, are decoded in Rust in half the time. The
pixels are the same; what that decoder refuses is left to Pillow, which decides. It does not compare
the checksum inside the compressed data (Adler-32), as Pillow does.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from kornia_rs import io as rust
from PIL import PngImagePlugin

from trainer.decoding.refusal import refuse

_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_IHDR = struct.pack(">I4s", 13, b"IHDR")
_CHANNELS = {0: "mono", 2: "rgb"}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each colour type."""
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row, first column, and the distances of rows and columns, of each pass of interlacing."""
_INFLATED_AT_ONCE = 1 << 20
_PLAIN_PIXELS = 1 << 24
"""A larger picture is left to Pillow: a lack of memory ends a process that runs Rust."""


def select_chunks(data: bytes) -> bytes:
    """Return the PNG file with only the chunks that make the picture, their checksums verified.

    Pillow checks neither the checksums of the pixels nor the end of the file. It inflates texts and
    colour profiles, which the picture does not need.
    """
    parts = [data[:8]]
    for name, chunk in _chunks(memoryview(data)):
        if name == b"CgBI":
            refuse(
                "unsupported",
                "the PNG file is of Apple's CgBI variant, which only iOS reads",
            )
        if name == b"acTL" and len(chunk) >= 16 and struct.unpack_from(">I", chunk, 8)[0] > 1:
            refuse("unsupported", "expected one picture, the PNG file is animated")
        if name in _KEPT:
            if zlib.crc32(chunk[4:-4]) != struct.unpack_from(">I", chunk, len(chunk) - 4)[0]:
                refuse(
                    "truncated",
                    f"the checksum of the {name.decode()} chunk of the PNG file is wrong",
                )
            parts.append(chunk)
    return b"".join(parts)


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name of each chunk to the last, and the chunk with its length and checksum."""
    name, position = b"", 8
    while name != b"IEND":
        if position + 12 > len(view):
            refuse("truncated", "the PNG file ends before its IEND chunk")
        length, name = struct.unpack_from(">I4s", view, position)
        end = position + 12 + length
        if end > len(view):
            refuse("truncated", "the PNG file ends inside a chunk")
        yield name, view[position:end]
        position = end


def check_header(data: bytes) -> None:
    """Refuse a file of `select_chunks` whose header PNG does not allow."""
    if data[8:16] != _IHDR:
        refuse("truncated", "the PNG file does not begin with a whole IHDR chunk")
    width, height, bits, colour, *methods = struct.unpack_from(">IIBBBBB", data, 16)
    if not (width and height):
        refuse("truncated", f"the header of the PNG file announces {height} x {width} pixels")
    if bits not in _BITS.get(colour, ()):
        refuse(
            "truncated",
            f"the header of the PNG file announces {bits} bits of colour type {colour}, which PNG "
            "does not have",
        )
    if methods[:2] != [0, 0] or methods[2] > 1:
        refuse(
            "truncated",
            "the header of the PNG file announces a compression, filter or interlacing that PNG "
            "does not have",
        )


def check_rows(data: bytes) -> None:
    """Refuse a file of `select_chunks` whose compressed data end before the last row.

    Pillow fills the rows that are missing with black. Data that are no compressed data are left to
    Pillow, which refuses them.
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    missing = 0
    for top, left, down, right in _ADAM7 if interlaced else _WHOLE:
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        if columns:
            missing += rows * (1 + (columns * bits * _SAMPLES[colour] + 7) // 8)
    inflater = zlib.decompressobj()
    for name, chunk in _chunks(memoryview(data)):
        rest: bytes | memoryview = chunk[8:-4] if name == b"IDAT" else b""
        while rest and missing > 0:
            try:
                missing -= len(inflater.decompress(rest, _INFLATED_AT_ONCE))
            except zlib.error:
                return
            rest = inflater.unconsumed_tail
    if missing > 0:
        refuse("truncated", "the data of the PNG file end before its last row")


def scale_transparent_value(image: PngImagePlugin.PngImageFile, data: bytes) -> None:
    """Scale the transparent value of grey of 2 or 4 bits to 8 bits, as Pillow scales the pixels."""
    bits, value = data[24], image.info.get("transparency")
    if image.mode == "L" and bits < 8 and value is not None:
        full = (1 << bits) - 1
        image.info["transparency"] = (value & full) * (255 // full)


def decode_plain(data: bytes) -> np.ndarray | None:
    """Decode grey or RGB of 8 bits, of a file that `select_chunks` returned.

    Returns:
      uint8 [height, width], or [height, width, 3] for RGB; None for any other kind of PNG, and
      where the data do not make a whole picture.
    """
    # No palette, no transparency and no orientation.
    names = [name for name, _ in _chunks(memoryview(data))]
    if (data[8:16], set(names[1:])) != (_IHDR, {b"IDAT", b"IEND"}):
        return None
    width, height, bits, colour, *methods = struct.unpack_from(">IIBBBBB", data, 16)
    is_plain = bits == 8 and colour in _CHANNELS and methods == [0, 0, 0]
    if not is_plain or not 0 < width * height <= _PLAIN_PIXELS:
        return None
    try:
        pixels = rust.decode_image_png_u8(data, (height, width), _CHANNELS[colour])
    except Exception:  # Its type is `Exception` itself.
        return None
    return pixels[..., 0] if colour == 0 else pixels
