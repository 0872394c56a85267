"""BMP files of every depth against their definition."""

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.radiograph import read

_LUMA = np.array([0.299, 0.587, 0.114])
_BITFIELDS = 3
_HEADERS = (40, 108, 124)
_KINDS = ("1", "4", "8", "555", "565", "24", "32", "32 with alpha", "32 with empty alpha")


def draw(rng: np.random.Generator, kind: str) -> tuple[bytes, np.ndarray]:
    """Return a BMP file, and its grey levels [height, width] from 0 to 255."""
    height, width, is_top_down = *rng.integers(1, 16, 2), bool(rng.integers(2))
    header_size, compression, palette = int(rng.choice(_HEADERS)), 0, b""
    masks = (0, 0, 0, 0)
    colours = rng.integers(0, 256, (height, width, 3))
    if kind in ("1", "4", "8"):
        bits = int(kind)
        entries = rng.integers(0, 256, (int(rng.integers(2, 1 + (1 << bits))), 3))
        palette = b"".join(bytes([blue, green, red, 0]) for red, green, blue in entries)
        samples = rng.integers(0, len(entries), (height, width))
        colours = entries[samples]
        digits = samples[..., None] >> np.arange(bits)[::-1] & 1
        rows = np.packbits(digits.reshape(height, -1), axis=1)
    elif kind in ("555", "565"):
        bits, green_bits = 16, int(kind[1])
        full = np.array([31, (1 << green_bits) - 1, 31])
        samples = rng.integers(0, full + 1, (height, width, 3))
        colours = samples * 255 / full
        if kind == "565":
            compression, masks = _BITFIELDS, (0xF800, 0x7E0, 0x1F, 0)
        shifts = np.array([5 + green_bits, 5, 0])
        rows = (samples << shifts).sum(-1).astype("<u2").view(np.uint8).reshape(height, -1)
    else:
        bits, bands = int(kind[:2]), [colours[..., ::-1]]
        if bits == 32:
            alpha = rng.integers(1, 256, (height, width, 1)) * (kind == "32 with alpha")
            bands.append(alpha)
        if "alpha" in kind:
            header_size, compression = 124, _BITFIELDS
            masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
            colours = colours * alpha / 255 if alpha.any() else colours
        rows = np.concatenate(bands, axis=-1).astype(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    pixels = (padded if is_top_down else padded[::-1]).tobytes()
    fields = (width, -height if is_top_down else height, 1, bits, compression, len(pixels))
    header = struct.pack("<IiiHHIIiiII", header_size, *fields, 2835, 2835, len(palette) // 4, 0)
    if header_size > 40:
        header = (header + struct.pack("<4I", *masks)).ljust(header_size, b"\0")
    elif compression:
        header += struct.pack("<3I", *masks[:3])
    start = 14 + len(header) + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    return head + header + palette + pixels, colours @ _LUMA


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(_KINDS))
def test_every_depth_has_the_grey_levels_of_its_definition(seed, kind):
    file, grey = draw(np.random.default_rng(seed), kind)
    pixels = read(file).pixels
    assert pixels.shape == grey.shape
    # Pillow rounds colours of 5 and 6 bits down.
    assert np.abs(pixels - grey).max() <= 1.5, kind
