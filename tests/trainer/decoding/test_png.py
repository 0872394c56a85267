"""PNG files of every kind against their definition, and with data that lack rows."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import odd_png
from tests.support.pictures import png_chunk
from trainer.radiograph import RadiographError, read

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_kind_has_the_grey_levels_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    odd = odd_png.draw(rng)
    pixels = read(odd.encode(rng)).pixels
    assert pixels.shape == odd.grey.shape
    assert np.abs(pixels - odd.grey).max() <= 1.01, odd.kind


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_data_that_end_before_the_last_row_give_no_picture(seed, data):
    rng = np.random.default_rng(seed)
    odd = odd_png.draw(rng)
    whole = b"".join(odd.rows)
    # Pillow itself refuses data that end inside a row, but not those that end between two.
    ends = np.cumsum([0, *map(len, odd.rows)])[:-1].tolist()
    end = data.draw(st.sampled_from(ends) | st.integers(0, len(whole) - 1))
    packed = zlib.compress(whole[:end])
    with pytest.raises(RadiographError) as caught:
        read(odd_png.join(odd.head, packed, rng))
    assert caught.value.reason == "truncated" and "before its last row" in str(caught.value)


def test_pillow_takes_data_without_the_last_rows():
    # Where this fails, `png.check_rows` may go.
    rng = np.random.default_rng(0)
    head = _SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 40, 8, 0, 0, 0, 0))
    rows = b"".join(b"\0" + rng.bytes(30) for _ in range(20))
    file = odd_png.join(head, zlib.compress(rows), rng)
    assert not np.asarray(Image.open(io.BytesIO(file)))[20:].any()


@pytest.mark.parametrize(
    ("width", "height", "bits", "colour", "methods", "words"),
    [
        (0, 3, 8, 0, (0, 0, 0), "announces 3 x 0 pixels"),
        (4, 0, 8, 0, (0, 0, 0), "announces 0 x 4 pixels"),
        (4, 3, 3, 0, (0, 0, 0), "3 bits of colour type 0"),
        (4, 3, 4, 2, (0, 0, 0), "4 bits of colour type 2"),
        (4, 3, 16, 3, (0, 0, 0), "16 bits of colour type 3"),
        (4, 3, 8, 5, (0, 0, 0), "8 bits of colour type 5"),
        (4, 3, 8, 0, (1, 0, 0), "compression, filter or interlacing"),
        (4, 3, 8, 0, (0, 64, 0), "compression, filter or interlacing"),
        (4, 3, 8, 0, (0, 0, 2), "compression, filter or interlacing"),
    ],
)
def test_a_header_that_png_does_not_allow_is_named(width, height, bits, colour, methods, words):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, *methods)
    head = _SIGNATURE + png_chunk(b"IHDR", header)
    with pytest.raises(RadiographError, match=words) as caught:
        read(odd_png.join(head, zlib.compress(bytes(99)), np.random.default_rng(0)))
    assert caught.value.reason == "truncated"
