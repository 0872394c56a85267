"""Read the chunks of a PNG file, and decode the plain kind of PNG fast.

Pillow ignores the checksums of the pixels and the end of the file, so that these are checked here.
Pictures of 8 bits, grey or RGB, which most files are, are decoded in Rust in half the time. The
pixels are the same; what that decoder refuses is left to Pillow, which decides. It does not compare
the checksum inside the compressed data (Adler-32), as Pillow does.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from kornia_rs import io as rust

from trainer.decoding.refusal import refuse

_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_IHDR = struct.pack(">I4s", 13, b"IHDR")
_CHANNELS = {0: "mono", 2: "rgb"}
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
                    f"the checksum of a {name.decode()} chunk of the PNG file is wrong",
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
