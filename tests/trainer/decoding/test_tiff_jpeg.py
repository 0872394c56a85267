"""JPEG inside of TIFF: sound files are read, and damage is seen that libtiff doesn't report."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tests.support.pictures import encode
from trainer.radiograph import RadiographError, read

OFFSETS, COUNTS = 273, 279


def _scene(mode: str) -> Image.Image:
    y, x = np.mgrid[:240, :200]
    values = 120 + 60 * np.sin(x / 9) * np.cos(y / 11)
    values += np.random.default_rng(0).normal(0, 12, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode)


def _find_strip(data: bytes) -> tuple[int, int]:
    """Return where the first strip of a TIFF file begins and ends."""
    with TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as image:
        return image.tag_v2[OFFSETS][0], sum(image.tag_v2[tag][0] for tag in (OFFSETS, COUNTS))


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
@pytest.mark.parametrize("strip", [1 << 20, 1 << 12], ids=["one strip", "several strips"])
def test_sound_files_are_read(mode, strip, monkeypatch):
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", strip)
    scene = _scene(mode)
    grey = np.asarray(scene.convert("RGB").convert("L")).astype(int)
    found = read(encode(scene, "TIFF", compression="jpeg", quality=95))
    assert np.abs(found.pixels - grey).mean() < 4 and not found.warnings


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda strip: strip[: len(strip) // 2] + bytes(len(strip) - len(strip) // 2),
        lambda strip: (
            strip[: len(strip) // 2] + b"\xff\xd9" + bytes(len(strip) - len(strip) // 2 - 2)
        ),
        lambda strip: (
            strip[: len(strip) // 3] + bytes(len(strip) // 3) + strip[2 * (len(strip) // 3) :]
        ),
    ],
    ids=["zeros to the end", "an early end marker", "zeros in the middle"],
)
def test_damaged_data_are_truncated(mode, damage):
    data = encode(_scene(mode), "TIFF", compression="jpeg", quality=90)
    begin, end = _find_strip(data)
    damaged = data[:begin] + damage(data[begin:end]) + data[end:]
    assert len(damaged) == len(data)
    with pytest.raises(RadiographError, match=r"^truncated: "):
        read(damaged)


def test_a_strip_without_a_length_is_left_to_libtiff():
    data = encode(_scene("L"), "TIFF", compression="jpeg", quality=90)
    at = data.index(struct.pack("<H", COUNTS) + b"\x04\0\x01\0\0\0") + 8
    found = read(data[:at] + bytes(4) + data[at + 4 :])
    assert np.array_equal(found.pixels, read(data).pixels)


def test_a_stream_of_another_size_than_its_strip_costs_no_memory():
    data = encode(_scene("L"), "TIFF", compression="jpeg", quality=90)
    at = data.index(b"\xff\xc0") + 5
    huge = data[:at] + struct.pack(">HH", 30_000, 30_000) + data[at + 4 :]
    tracemalloc.start()
    with pytest.raises(RadiographError):
        read(huge)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_strip_that_is_announced_too_short_is_truncated():
    data = encode(_scene("L"), "TIFF", compression="jpeg", quality=90)
    begin, end = _find_strip(data)
    count = (end - begin).to_bytes(4, "little")
    at = data.index(b"\x17\x01\x04\0\x01\0\0\0" + count)
    with pytest.raises(RadiographError, match=r"^truncated: "):
        read(data[: at + 8] + ((end - begin) // 2).to_bytes(4, "little") + data[at + 12 :])
