"""Draw PNG files of every kind, with the grey levels that their samples stand for.

The encoder follows the PNG specification alone, so that it shares nothing with a decoder.
"""

import itertools
import struct
import zlib
from typing import NamedTuple

import numpy as np

from tests.support.pictures import ADAM7, png_chunk

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]
_KINDS += [(3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)]
_LUMA = np.array([0.299, 0.587, 0.114])
_FULL_SCALES = (255, 1023, 4095, 16383, 65535)


class OddPng(NamedTuple):
    """A PNG file in parts, so that a test can damage one.

    Attributes:
      kind: what is special about it, for messages.
      head: from the signature to the last chunk before the pixels.
      rows: the filtered rows before compression.
      grey: float [height, width], the grey levels by definition, from 0 to 255.
    """

    kind: str
    head: bytes
    rows: list[bytes]
    grey: np.ndarray

    def encode(self, rng: np.random.Generator) -> bytes:
        """Return the file, its data compressed at any level and cut into chunks anywhere."""
        return join(self.head, zlib.compress(b"".join(self.rows), int(rng.integers(0, 10))), rng)


def join(head: bytes, data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file of a head and compressed data, which are cut into one to four chunks."""
    cuts = [0, *sorted(rng.integers(0, len(data) + 1, int(rng.integers(0, 4)))), len(data)]
    parts = [png_chunk(b"IDAT", data[a:b]) for a, b in itertools.pairwise(cuts)]
    return head + b"".join(parts) + png_chunk(b"IEND", b"")


def draw(rng: np.random.Generator) -> OddPng:
    """Return a file of any colour type, bit depth, filter, interlacing and transparency."""
    colour, bits = _KINDS[rng.integers(len(_KINDS))]
    height, width, interlaced = *rng.integers(1, 20, 2), bool(rng.integers(2))
    palette = rng.integers(0, 256, (int(rng.integers(1, 1 + (1 << min(bits, 8)))), 3))
    top = (1 << bits) - 1 if bits < 16 else int(rng.choice(_FULL_SCALES)) - 3
    top = len(palette) - 1 if colour == 3 else top
    samples = rng.integers(0, top + 1, (height, width, _SAMPLES[colour]))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    chunks = [png_chunk(b"IHDR", header)]
    chunks += _draw_side_chunks(rng)
    if colour == 3:
        chunks.append(png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    transparent = None
    if colour in (0, 2) and rng.integers(2):
        transparent = samples[rng.integers(height), rng.integers(width)]
        chunks.append(png_chunk(b"tRNS", transparent.astype(">u2").tobytes()))
    if colour == 3 and rng.integers(2):
        transparent = np.where(rng.integers(0, 2, len(palette)), rng.integers(0, 256), 255)
        chunks.append(png_chunk(b"tRNS", transparent.astype(np.uint8).tobytes()))
    kind = f"colour type {colour}, {bits} bits, {height} x {width}"
    kind += ", interlaced" * interlaced + ", transparent" * (transparent is not None)
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = [
        row
        for start, left, down, right in passes
        for row in _filter(samples[start::down, left::right], bits, rng)
    ]
    grey = _define_grey(samples, bits, colour, palette, transparent)
    return OddPng(kind, b"\x89PNG\r\n\x1a\n" + b"".join(chunks), rows, grey)


def _draw_side_chunks(rng: np.random.Generator) -> list[bytes]:
    """Return some chunks that leave the picture as it is."""
    known = [(b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"), (b"tIME", bytes(7))]
    known += [(b"tEXt", b"Comment\0text"), (b"pHYs", struct.pack(">IIB", 1, 3, 1))]
    known += [(b"acTL", struct.pack(">II", 1, 0)), (b"iCCP", b"broken")]
    return [png_chunk(*known[index]) for index in np.flatnonzero(rng.integers(0, 2, len(known)))]


def _filter(samples: np.ndarray, bits: int, rng: np.random.Generator) -> list[bytes]:
    """Return the rows of one pass, each behind the number of a filter drawn at random."""
    if not samples.size:
        return []
    distance = max(1, bits * samples.shape[2] // 8)
    rows, above = [], None
    for row in samples.reshape(len(samples), -1):
        if bits >= 8:
            raw = np.frombuffer(row.astype(f">u{bits // 8}").tobytes(), np.uint8).astype(int)
        else:
            raw = np.packbits(row[:, None] >> np.arange(bits)[::-1] & 1).astype(int)
        above = np.zeros_like(raw) if above is None else above
        left, corner = (np.r_[np.zeros(distance, int), line][: len(raw)] for line in (raw, above))
        kind = int(rng.integers(5))
        predicted = (0 * raw, left, above, (left + above) // 2, _paeth(left, above, corner))[kind]
        rows.append(bytes([kind]) + ((raw - predicted) % 256).astype(np.uint8).tobytes())
        above = raw
    return rows


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    to_left, to_above = abs(above - corner), abs(left - corner)
    to_corner = abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)


def _define_grey(
    samples: np.ndarray,
    bits: int,
    colour: int,
    palette: np.ndarray,
    transparent: np.ndarray | None,
) -> np.ndarray:
    """Return the grey levels by the definitions of docs/data-preparation.md."""
    colours = samples[..., :-1] if colour in (4, 6) else samples
    full = (1 << bits) - 1
    alpha = samples[..., -1] / full if colour in (4, 6) else np.ones(samples.shape[:2])
    if bits == 16:
        full = min(scale for scale in _FULL_SCALES if scale >= colours.max())
    if colour == 3:
        if transparent is not None:
            alpha = transparent[samples[..., 0]] / 255
        colours, full = palette[samples[..., 0]], 255
    elif transparent is not None:
        alpha = (samples != transparent).any(-1).astype(float)
    luma = colours @ _LUMA if colours.shape[-1] == 3 else colours[..., 0]
    return luma * (255 / full) * alpha
