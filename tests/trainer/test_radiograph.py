"""Files to pixels: the promised outcome of each kind of file, and hand-computed pixels."""

import contextlib
import csv
import io
import json
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.dicom_files import dicom_file
from tests.support.image_files import image_files, tiff_file
from tests.support.pictures import (
    encode,
    interlaced_png,
    oriented,
    patched,
    picture,
    png,
    png_chunk,
)
from trainer import radiograph
from trainer.decoding.png import decode_plain
from trainer.radiograph import RadiographError, letterbox, load, placement, read

FILES = image_files()


# Letterbox


def test_letterbox_shrinks_by_area_by_hand():
    pixels = np.array([[0, 100, 10, 20], [200, 40, 30, 40]], np.uint8)
    # Half size: the means of two 2x2 blocks, 85 and 25, in one row, and a black row below it.
    assert letterbox(pixels, 2)[..., 0].tolist() == [[85, 25], [0, 0]]


def test_letterbox_centres_the_picture():
    pixels = np.full((8, 2), 9, np.uint8)
    assert letterbox(pixels, 4)[..., 0].tolist() == [[0, 9, 0, 0]] * 4
    assert letterbox(pixels.T, 4)[..., 0].tolist() == [
        [0] * 4,
        [9] * 4,
        [0] * 4,
        [0] * 4,
    ]
    assert placement(8, 2, 4) == radiograph.Placement(top=0, left=1, height=4, width=1)


def test_letterbox_enlarges_linearly_by_hand():
    # Twice the size: pixel centres at -1/4, 1/4, 3/4 and 5/4 of the way from 0 to 100.
    assert (
        letterbox(np.array([[0, 100]], np.uint8), 4)[1:3, :, 0].tolist() == [[0, 25, 75, 100]] * 2
    )


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_letterbox_is_the_mean_of_blocks(factor):
    pixels = np.random.default_rng(factor).integers(0, 256, (12 * factor, 12 * factor), np.uint8)
    means = pixels.reshape(12, factor, 12, factor).mean((1, 3))
    assert np.abs(letterbox(pixels, 12)[..., 0] - means).max() <= 0.51


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.integers(1, 1024))
def test_placement_keeps_the_shape_and_fills_the_square(height, width, size):
    place = placement(height, width, size)
    assert max(place.height, place.width) == size
    assert min(place.height, place.width) >= 1
    scale = size / max(height, width)
    assert abs(place.height - height * scale) < 1 and abs(place.width - width * scale) < 1
    assert (
        0 <= size - place.height - 2 * place.top <= 1
        and 0 <= size - place.width - 2 * place.left <= 1
    )


@pytest.mark.parametrize("shape", [(1, 1), (20_000, 1), (1, 20_000), (20_000, 3), (7, 320)])
def test_letterbox_of_extreme_shapes(shape):
    square = letterbox(np.full(shape, 200, np.uint8), 32)
    place = placement(*shape, 32)
    inside = square[place.top : place.top + place.height, place.left : place.left + place.width]
    assert square.shape == (32, 32, 1) and square.dtype == np.uint8
    assert (inside == 200).all() and square.sum(dtype=int) == 200 * place.height * place.width


def test_letterbox_refuses_other_arrays():
    with pytest.raises(ValueError, match=r"expected uint8 \[height, width\], got float64 \[2, 2\]"):
        letterbox(np.zeros((2, 2)), 4)
    with pytest.raises(ValueError, match="expected positive sides"):
        placement(0, 4, 4)


# Every kind of file


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about TIFF tags that end early
def test_outcome_of_every_kind_of_file(name):
    data, reason = FILES[name]
    if reason is None:
        found = read(data)
        assert (
            found.pixels.dtype == np.uint8
            and found.pixels.ndim == 2
            and found.pixels.flags.c_contiguous
        )
        assert np.array_equal(load(data, 32), letterbox(found.pixels, 32))
    else:
        with pytest.raises(RadiographError) as caught:
            read(data)
        assert caught.value.reason == reason and reason in radiograph.REASONS
        assert str(caught.value) == f"{reason}: {caught.value.detail}" and "\n" not in str(
            caught.value
        )


def test_the_collection_is_broad():
    reasons = {file.reason for file in FILES.values()}
    assert len(FILES) >= 160 and reasons == {None, *radiograph.REASONS}
    formats = {read(file.data).source_format for file in FILES.values() if file.reason is None}
    assert formats == {"PNG", "JPEG", "TIFF", "BMP", "WEBP", "DICOM"}


EXACT = [
    *(
        "grey.png",
        "rgb.png",
        "palette.png",
        "interlaced.png",
        "a png without ending",
        "sixteen bits.png",
        "sixteen bits rgb.png",
    ),
    *(
        "uncompressed.tiff",
        "tiff_lzw.tif",
        "tiff_adobe_deflate.tif",
        "packbits.tif",
        "big.tif",
        "palette.tif",
        "cmyk.tif",
    ),
    *(
        "rgb and alpha.tif",
        "sixteen bits.tif",
        "sixteen bits big endian.tif",
        "white is zero.tif",
        "thirty-two bits.tif",
    ),
    *(
        "planes of eight bits.tif",
        "pixels of sixteen bits.tif",
        "floating point.tif",
        "grey.bmp",
        "rgb.BMP",
        "lossless.webp",
        "rgb.dcm",
    ),
]
WITHIN_ONE = ["twelve of sixteen bits.png", "implicit.dcm", "white is zero.dcm"]
LOSSY = [
    "grey.jpg",
    "rgb.JPEG",
    "progressive.jpg",
    "restart markers.jpg",
    "cmyk by adobe.jpg",
    "cmyk plain.jpg",
    "jpeg.tif",
    "lossy.webp",
]


@pytest.mark.parametrize("name", EXACT + WITHIN_ONE + LOSSY)
def test_kinds_give_the_picture_back(name):
    difference = np.abs(read(FILES[name].data).pixels.astype(int) - picture())
    if name in LOSSY:
        assert difference.mean() < 3
    else:
        assert difference.max() <= (name in WITHIN_ONE)


@pytest.mark.parametrize(
    "name", ["turned by exif.png", "turned by its tag.tif", "turned by exif.webp"]
)
def test_orientation_six_turns_clockwise(name):
    assert np.array_equal(read(FILES[name].data).pixels, np.rot90(picture(), -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(kind, orientation):
    stored = picture()
    image = Image.fromarray(stored).convert("RGB" if kind == "WEBP" else "L")
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    shown = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored),
    }[orientation]
    pixels = read(encode(image, kind, exif=oriented(orientation), **options)).pixels
    assert pixels.shape == shown.shape
    assert np.abs(pixels.astype(int) - shown).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_only_exif_turns_a_picture(kind):
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
        b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    stored = picture()[:, :-3]
    assert read(encode(Image.fromarray(stored), kind, xmp=xmp)).pixels.shape == stored.shape


def _exif(order: str, entries: list[tuple[int, int, int, bytes]], offset: int = 8) -> bytes:
    """Return EXIF data whose first directory has these entries: tag, type, count, value."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", offset)
    packed = [
        struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
        for tag, kind, count, value in entries
    ]
    return head + struct.pack(f"{order}H", len(entries)) + b"".join(packed) + bytes(4)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "letter"), [(1, "B"), (3, "H"), (4, "I")])
def test_the_orientation_is_read_in_any_order_and_type(prefix, order, kind, letter):
    value = struct.pack(f"{order}{letter}", 6)
    exif = prefix + _exif(order, [(0x10F, 2, 2, b"x"), (0x112, kind, 1, value)])
    stored = picture()
    rows = [b"\0" + row.tobytes() for row in stored]
    data = png(rows, stored.shape[1], stored.shape[0], 8, 0, more=png_chunk(b"eXIf", exif))
    assert np.array_equal(read(data).pixels, np.rot90(stored, -1))


@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            _exif,
            st.sampled_from("<>"),
            st.lists(
                st.tuples(
                    st.sampled_from([0x112, 0x10F]),
                    st.integers(0, 20),
                    st.integers(0, 2**32 - 1),
                    st.binary(max_size=4),
                ),
                max_size=5,
            ),
            st.integers(0, 2**32 - 1),
        ),
    )
)
def test_damaged_exif_turns_or_leaves_a_picture(exif):
    stored = picture()
    rows = [b"\0" + row.tobytes() for row in stored]
    data = png(rows, stored.shape[1], stored.shape[0], 8, 0, more=png_chunk(b"eXIf", exif))
    assert sorted(read(data).pixels.shape) == sorted(stored.shape)


@pytest.mark.parametrize("stray", [b"\0", b"\0\0\0", b"abc", b"\xff\0", b"\xff\xd0"])
@pytest.mark.parametrize("place", ["ahead of EXIF", "behind EXIF"])
def test_stray_bytes_between_segments_hide_no_orientation(stray, place):
    """libjpeg and Pillow skip them."""
    plain = encode(picture(), "JPEG", quality=95)
    end = 4 + int.from_bytes(plain[4:6], "big")  # of JFIF's segment
    content = b"Exif\0\0" + _exif("<", [(0x112, 3, 1, struct.pack("<H", 6))])
    exif = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    middle = stray + exif if place == "ahead of EXIF" else exif + stray
    turned = read(plain[:end] + middle + plain[end:]).pixels
    assert np.array_equal(turned, np.rot90(read(plain).pixels, -1))


def test_exif_that_goes_on_in_a_second_segment():
    plain = encode(picture(), "JPEG", quality=95)
    exif = _exif("<", [(0x10F, 2, 2, b"x"), (0x112, 3, 1, struct.pack("<H", 6))])
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part
        for part in (b"", exif[:20], exif[20:])
    )
    turned = read(plain[:2] + segments + plain[2:]).pixels
    assert np.array_equal(turned, np.rot90(read(plain).pixels, -1))


def _tiff_with_tags(count: int, size: int, order: str = "<", nested: int = 0) -> bytes:
    """Return a TIFF file with `count` private tags that share `size` bytes at its end.

    They are in its own directory, or in one that the tag `nested` names.
    """
    plain = tiff_file(picture(), order=order)
    (place,) = struct.unpack_from(f"{order}I", plain, 4)
    (own,) = struct.unpack_from(f"{order}H", plain, place)
    entries = [plain[place + 2 + 12 * i : place + 14 + 12 * i] for i in range(own)]
    start = len(plain)
    end = start + 2 + 12 * (own + count + 1) + 4
    more = [
        struct.pack(f"{order}HHII", 60000 + i % 5000, 7, size, end + 2 + 12 * count + 4)
        for i in range(count)
    ]

    def join(listed: list[bytes]) -> bytes:
        return struct.pack(f"{order}H", len(listed)) + b"".join(listed) + bytes(4)

    if nested:
        link = struct.pack(f"{order}HHII", nested, 4, 1, end)
        content = join([*entries, link]).ljust(end - start, b"\0") + join(more)
    else:
        content = join([*entries, *more]).ljust(end - start + 2 + 12 * count + 4, b"\0")
    head = plain[:4] + struct.pack(f"{order}I", start) + plain[8:]
    return head + content + bytes(size)


@pytest.mark.parametrize("nested", [0, 34665, 330])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_tiff_that_share_their_bytes_are_refused(order, nested):
    """1,000 tags of the same megabyte; three such tags do no harm."""
    few = read(_tiff_with_tags(3, 1 << 20, order, nested))
    assert np.array_equal(few.pixels, picture())
    tracemalloc.start()
    try:
        with pytest.raises(RadiographError, match="too_large"):
            read(_tiff_with_tags(1000, 1 << 20, order, nested))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_tiff_directories_without_end_are_refused():
    """Each directory begins two bytes behind the one before, and has 65,535 tags of no size."""
    data = b"II*\0\x08\0\0\0" + b"\xff" * 2_000_000
    with pytest.raises(RadiographError):
        read(data)


def test_big_tiff_in_big_endian_order_is_named():
    with pytest.raises(RadiographError, match=r"unsupported: .*BigTIFF in big-endian order"):
        read(b"MM\0+\0\x08\0\0" + struct.pack(">Q", 16) + bytes(100))


def _noisy_jpeg(**options) -> bytes:
    noise = np.random.default_rng(0).integers(60, 200, (60, 80)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cv2.resize(noise, (320, 240))).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_file_of_whose_pixel_data_libjpeg_warns_is_truncated(progressive):
    """A byte changes. In a progressive file, what is left over then lies between two scans."""
    whole, warned = _noisy_jpeg(progressive=progressive), 0
    start = whole.index(b"\xff\xda") + 12
    for place in np.random.default_rng(1).integers(start, start + 2000, 200):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        try:
            simplejpeg.decode_jpeg(damaged, "GRAY")
        except ValueError:
            warned += 1
            with pytest.raises(RadiographError, match="truncated"):
                read(damaged)
    assert warned > 20


@pytest.mark.parametrize("stray", [b"\0" * 7, b"abc", b"\xff\0\x12"])
def test_stray_bytes_in_the_header_of_a_jpeg_do_no_harm(stray):
    whole = _noisy_jpeg(progressive=True)
    place = whole.index(b"\xff\xdb")
    found = read(whole[:place] + stray + whole[place:])
    assert np.array_equal(found.pixels, read(whole).pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_ycbcr_of_tiff_is_read_or_refused(compression):
    """Pillow takes uncompressed YCbCr for four bytes a pixel."""
    grey = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    stream = io.BytesIO()
    coloured = Image.fromarray(grey).convert("RGB").convert("YCbCr")
    coloured.save(stream, "TIFF", compression=compression)
    data = stream.getvalue() + bytes(grey.size * 4)
    if compression:
        assert np.allclose(read(data).pixels, grey, atol=1)
    else:
        with pytest.raises(RadiographError, match=r"unsupported: .* has YCbCr"):
            read(data)


@pytest.mark.parametrize("factor", [1, 257])
def test_palettes_of_tiff_that_some_programs_write_in_8_bits_are_read(factor):
    """By TIFF 6.0 the levels of a palette reach 65,535 (257 times 255)."""
    inverted = np.arange(255, -1, -1)
    indexed = Image.fromarray(picture()).convert("P")
    indexed.putpalette(np.repeat(inverted, 3).astype(np.uint8).tobytes())
    stream = io.BytesIO()
    indexed.save(stream, "TIFF")
    levels = np.tile(inverted, 3).astype("<u2")
    pillows, stored = (levels * 256).tobytes(), (levels * factor).tobytes()
    assert stream.getvalue().count(pillows) == 1
    found = read(stream.getvalue().replace(pillows, stored))
    assert np.array_equal(found.pixels, 255 - picture())


def test_segments_of_exif_that_make_one_block_take_no_memory():
    """Pillow joins them: 1,500 tags of the same megabyte."""
    exif = _exif("<", [(0x9000 + i, 7, 1 << 20, struct.pack("<I", 0)) for i in range(1500)])
    exif = exif.ljust(1 << 20, b"\0")
    parts = [b"Exif\0\0" + exif[at : at + 60_000] for at in range(0, len(exif), 60_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    plain = encode(picture(), "JPEG")
    expected = read(plain).pixels
    tracemalloc.start()
    try:
        assert np.array_equal(read(plain[:2] + segments + plain[2:]).pixels, expected)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_tags_of_exif_that_share_their_bytes_take_no_memory():
    """1,000 tags of the same 200,000 bytes."""
    exif = _exif("<", [(0x9000 + i, 7, 200_000, struct.pack("<I", 0)) for i in range(1000)])
    stored = picture()
    rows = [b"\0" + row.tobytes() for row in stored]
    chunk = png_chunk(b"eXIf", exif.ljust(200_000, b"\0"))
    data = png(rows, stored.shape[1], stored.shape[0], 8, 0, more=chunk)
    tracemalloc.start()
    try:
        assert np.array_equal(read(data).pixels, stored)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_equal_channels_give_exactly_the_grey_values(kind):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read(encode(np.dstack([grey] * 3), kind)).pixels, grey)


def test_colour_becomes_luma_by_hand():
    # ITU-R 601: 0.299, 0.587, 0.114.
    colours = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [100, 50, 200]]],
        np.uint8,
    )
    assert read(encode(colours, "PNG")).pixels.tolist() == [[76, 150, 29, 255, 82]]


def test_a_colour_jpeg_is_decoded_as_its_luma_plane():
    data = encode(np.dstack([picture(), picture()[::-1], picture()[:, ::-1]]), "JPEG", quality=95)
    assert np.array_equal(
        read(data).pixels,
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE),
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_black(mode):
    grey, alpha = picture(), 255 - picture()
    layers = [Image.fromarray(layer) for layer in (grey, grey, grey, alpha)][-len(mode) :]
    expected = np.rint(grey.astype(float) * alpha / 255)
    data = encode(Image.merge(mode, layers), "PNG")
    assert np.abs(read(data).pixels - expected).max() <= 1


def test_a_transparent_value_is_black():
    grey = picture()
    transparent_black = read(encode(Image.fromarray(grey), "PNG", transparency=255)).pixels
    assert np.array_equal(transparent_black, np.where(grey == 255, 0, grey))


@pytest.mark.parametrize(
    ("bits", "scale"), [(8, 1), (10, 4), (12, 16), (14, 64), (16, 256), (16, 257)]
)
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_deep_grey_gives_the_eight_bit_picture_back(bits, scale, ending):
    data = cv2.imencode(ending, picture().astype(np.uint16) * scale)[1].tobytes()
    found = read(data)
    assert np.abs(found.pixels.astype(int) - picture()).max() <= (scale not in (1, 257))
    assert found.source_mode == "grey16" and found.pixels.max() >= 254


def test_deep_grey_by_hand():
    # The maximum 1000 needs 10 bits: 1023 would be white.
    values = np.array([[0, 500, 1000]], np.uint16)
    assert read(cv2.imencode(".png", values)[1].tobytes()).pixels.tolist() == [[0, 125, 249]]


def _deep_colour_files(grey: np.ndarray) -> dict[str, bytes]:
    """Return uint16 grey as each kind of file with 16-bit colour or grey and alpha."""
    opaque = np.full_like(grey, 65535)
    rgb, rgba = np.dstack([grey] * 3), np.dstack([grey] * 3 + [opaque])
    rows = [b"\0" + row.astype(">u2").tobytes() for row in np.dstack([grey, opaque])]
    files = {
        f"{name}{ending}": cv2.imencode(ending, pixels)[1].tobytes()
        for ending in (".png", ".tif")
        for name, pixels in (("rgb", rgb), ("rgba", rgba))
    }
    files["grey and alpha.png"] = png(rows, grey.shape[1], grey.shape[0], 16, 4)
    for order in "<>":
        files[f"rgb {order}.tif"] = tiff_file(rgb, order=order)
        for extra in range(3):
            files[f"rgb and {extra} {order}.tif"] = tiff_file(rgba, order=order, extra_sample=extra)
    return files


@pytest.mark.parametrize("name", _deep_colour_files(np.zeros((1, 1), np.uint16)))
@pytest.mark.parametrize(
    ("bits", "scale"), [(8, 1), (10, 4), (12, 16), (14, 64), (16, 256), (16, 257)]
)
def test_deep_colour_is_scaled_as_deep_grey(bits, scale, name):
    deep = picture().astype(np.uint16) * scale
    expected = read(cv2.imencode(".png", deep)[1].tobytes()).pixels
    assert np.array_equal(read(_deep_colour_files(deep)[name]).pixels, expected)


def test_deep_colour_by_hand():
    # The maximum 4000 needs 12 bits; luma 0.299, 0.587 and 0.114 of 4000, by 4095.
    colours = np.array([[[4000, 0, 0], [0, 4000, 0], [0, 0, 4000], [100, 0, 0]]], np.uint16)
    assert read(tiff_file(colours)).pixels.tolist() == [[74, 146, 28, 2]]
    transparent = png_chunk(b"tRNS", struct.pack(">3H", 0, 4000, 0))
    rows = [b"\0" + row.astype(">u2").tobytes() for row in colours]
    assert read(png(rows, 4, 1, 16, 2, more=transparent)).pixels.tolist() == [[74, 0, 28, 2]]


@pytest.mark.parametrize(("extra_sample", "expected"), [(0, 255), (1, 255), (2, 64)])
def test_deep_alpha_is_over_black(extra_sample, expected):
    # A quarter of the full alpha; premultiplied colours have it already.
    pixels = np.array([[[65535, 65535, 65535, 16384]]], np.uint16)
    assert read(tiff_file(pixels, extra_sample=extra_sample)).pixels.tolist() == [[expected]]
    rows = [b"\0" + struct.pack(">2H", 65535, 16384)]
    assert read(png(rows, 1, 1, 16, 4)).pixels.tolist() == [[64]]


def test_interlaced_deep_colour_is_the_same_picture():
    # Adam7 of one pixel is one pass.
    rows = [b"\0" + struct.pack(">3H", 2000, 2000, 2000)]
    assert read(png(rows, 1, 1, 16, 2, interlaced=True)).pixels.tolist() == [[125]]


@pytest.mark.parametrize("is_deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
def test_samples_have_one_meaning_in_either_order_of_bytes(kind, order, is_deflated):
    levels = picture().astype(int)
    if kind == "u2":
        pixels, expected = 251 * levels + 3, np.rint((251 * levels + 3) / 65535 * 255)
    else:  # stretched from the darkest to the brightest value
        pixels = 120 * levels - 9000
        expected = np.rint((levels - levels.min()) * 255 / (levels.max() - levels.min()))
    sample_format = {"u": 1, "i": 2, "f": 3}[kind[0]]
    data = tiff_file(pixels.astype(kind), sample_format, order=order, is_deflated=is_deflated)
    assert np.abs(read(data).pixels.astype(int) - expected).max() <= 1


def test_the_largest_numbers_of_floating_point_are_stretched_too():
    values = np.array([[-3e38, 0, 3e38]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(encode(values, "TIFF")).pixels.tolist() == [[0, 128, 255]]


def test_floating_point_stretches_the_finite_values():
    values = np.array([[-1.0, 0.0, 1.0, 3.0], [np.nan, np.inf, -np.inf, 3.0]], np.float32)
    assert read(encode(values, "TIFF")).pixels.tolist() == [
        [0, 64, 128, 255],
        [0, 0, 0, 255],
    ]
    assert read(encode(np.full((2, 2), np.nan, np.float32), "TIFF")).pixels.tolist() == [
        [0, 0],
        [0, 0],
    ]
    assert read(encode(np.array([[-(2**31), 2**31 - 1]], np.int32), "TIFF")).pixels.tolist() == [
        [0, 255]
    ]


@pytest.mark.parametrize(
    ("number", "name"),
    [(34887, "LERC"), (34712, "JPEG 2000"), (50001, "WebP"), (65535, "unknown")],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_compression_of_tiff_that_is_not_read_is_named(number, name, order):
    entry = struct.pack(f"{order}HHI", 259, 4, 1)
    data = patched(tiff_file(picture(), order=order), entry, 8, struct.pack(f"{order}I", number))
    with pytest.raises(RadiographError, match=rf"has compression {number} \({name}\)$") as caught:
        read(data)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("highest_byte", ["first", "last"])
def test_the_floating_point_predictor_is_read_in_little_endian_order_alone(highest_byte):
    """The highest byte is first (TIFF Technical Note 3); big-endian libtiff 4.5 writes it last."""
    pixels = picture().astype(np.float32) / 7 - 3
    of_samples = pixels.astype(">f4" if highest_byte == "first" else "<f4").view(np.uint8)
    planes = of_samples.reshape(len(pixels), -1, 4).transpose(0, 2, 1).reshape(len(pixels), -1)
    encoded = np.diff(planes, prepend=np.uint8(0), axis=1)
    files = {}
    for order in "<>":
        plain = tiff_file(encoded.view(f"{order}f4"), 3, order=order, is_deflated=True)
        planar, predictor = (
            struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in ((284, 1), (317, 3))
        )
        files[order] = plain.replace(planar, predictor)
    if highest_byte == "first":
        assert np.array_equal(read(files["<"]).pixels, read(tiff_file(pixels, 3)).pixels)
    with pytest.raises(RadiographError, match="unsupported: expected little-endian order"):
        read(files[">"])


def test_adam7_of_an_odd_size():
    pixels = np.random.default_rng(1).integers(0, 256, (13, 11), np.uint8)
    assert np.array_equal(read(interlaced_png(pixels)).pixels, pixels)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("animation.gif", "the content is GIF"),
        ("header of a terapixel.png", "at most 100,000,000 pixels, the header announces 1000000 x"),
        ("one bit flipped.png", "checksum"),
        ("unknown transfer syntax.dcm", r"transfer syntax \(unknown\)"),
        ("video transfer syntax.dcm", "MPEG2 Main Profile"),
        ("jpeg extended.dcm", "JPEG Extended"),
        ("lossless.jpg", "no decoder for lossless"),
        ("a thousand scans.jpg", "at most 100 scans"),
        (
            "ten million frames.dcm",
            "expected 26,400,000,000 bytes of DICOM pixel data, found 2,640",
        ),
        (
            "fewer pixels than announced.dcm",
            "expected 2,640 bytes of DICOM pixel data, found 2,638",
        ),
        ("pages.tif", "several frames or pages"),
    ],
)
def test_the_details_name_what_came(name, words):
    with pytest.raises(RadiographError, match=words):
        read(FILES[name].data)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (struct.pack("<i340x4s", 348, b"n+1"), "NIfTI"),
        (b"NRRD0004\ntype: short\n", "NRRD"),
    ],
)
def test_what_is_no_picture_for_this_program_is_refused_by_its_name(start, name):
    with pytest.raises(RadiographError, match=f"or DICOM, the content is {name}") as caught:
        read(start + bytes(100))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("length", [4, 5, 20])
@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_a_file_that_ends_in_its_header_is_not_described_in_terms_of_python(kind, length):
    with pytest.raises(RadiographError) as caught:
        read(encode(picture(), kind)[:length])
    assert not re.search("buffer|index|unpack", str(caught.value))


def test_several_frames_are_refused_with_their_number():
    pixels = np.zeros((24, 30), np.uint8)
    with pytest.raises(RadiographError, match="the DICOM file holds 3 frames") as caught:
        read(dicom_file(pixels, NumberOfFrames=3, Rows=8))
    assert caught.value.reason == "unsupported"


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(RadiographError("empty", "no bytes")))
    assert (error.reason, error.detail, str(error)) == (
        "empty",
        "no bytes",
        "empty: no bytes",
    )
    assert isinstance(error, ValueError)


def test_the_contract_is_json():
    assert json.loads(json.dumps(radiograph.PREPROCESSING)) == radiograph.PREPROCESSING
    assert json.loads(json.dumps(radiograph.REASONS)) == radiograph.REASONS


def test_a_transparent_value_of_sixteen_bits_is_black():
    rows = [b"\0" + bytes([0xFF, 0xFF, 0x80, 0x00] * 2)] * 4
    found = read(png(rows, 4, 4, 16, 0, more=png_chunk(b"tRNS", b"\xff\xff")))
    assert found.pixels.tolist() == [[0, 128, 0, 128]] * 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            png([b"\0" + bytes(4)] * 4, 4, 4, 8, 0, more=png_chunk(b"CgBI", bytes(4))),
            "CgBI",
        ),
        (
            b"\xff\xd8\xff\xe8\0\x20SPIFF\0" + bytes(24) + b"\xff\xf7\0\x0b" + bytes(30),
            "the content is JPEG-LS",
        ),
    ],
)
def test_a_variant_that_is_not_read_is_named(data, words):
    with pytest.raises(RadiographError, match=f"unsupported: .*{words}"):
        read(data)


# Warnings


@pytest.mark.parametrize(
    ("pixels", "blank"),
    [
        (np.zeros((40, 50)), True),
        (np.full((40, 50), 255), True),
        (np.tile([100, 101, 102], (10, 10)), True),
        (np.tile([100, 101, 103], (10, 10)), False),
        # Two pixels of two thousand are a thousandth.
        (np.r_[np.zeros(1998), 255, 255].reshape(40, 50), True),
        (np.r_[np.zeros(1997), 255, 255, 255].reshape(40, 50), False),
        (picture(), False),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_that_shows_nothing_carries_a_warning(pixels, blank, kind):
    found = read(encode(pixels.astype(np.uint8), kind))
    assert found.warnings == (("blank",) if blank else ())


def test_a_picture_that_shows_something_carries_no_warning():
    assert read(FILES["grey.png"].data).warnings == read(FILES["explicit.dcm"].data).warnings == ()


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [20, 75, 100])
@pytest.mark.parametrize("pixels", [picture(), np.full((40, 56), 128, np.uint8)])
@pytest.mark.parametrize("restart", [0, 1])
def test_a_jpeg_file_needs_all_rows_but_no_end_marker(subsampling, quality, pixels, restart):
    options = {"quality": quality, "subsampling": subsampling, "restart_marker_rows": restart}
    whole = encode(Image.fromarray(pixels).convert("RGB"), "JPEG", **options)
    for ended in (whole[:-1], whole[:-2]):
        found = read(ended)
        assert np.array_equal(found.pixels, read(whole).pixels)
        assert "no_end_marker" in found.warnings
    scan_start = whole.index(b"\xff\xda") + 14
    for length in range(max(scan_start, len(whole) - 80), len(whole) - 5):
        with pytest.raises(RadiographError, match=r"truncated: .* no end marker"):
            read(whole[:length])
    with pytest.raises(RadiographError, match=r"truncated: .* no end marker"):
        read(whole[: (scan_start + len(whole)) // 2] + bytes(1000))


def _jpegs():
    """Return JPEG streams of all that encoders vary."""
    large = np.kron(picture(), np.ones((6, 6), np.uint8))
    noisy = (large // 2 + np.random.default_rng(0).integers(0, 60, large.shape)).astype(np.uint8)
    image = Image.fromarray(noisy)
    options = {
        "grey": (image, {}),
        "colour, halved": (image.convert("RGB"), {"subsampling": 2}),
        "progressive": (image.convert("RGB"), {"progressive": True}),
        "progressive grey": (image, {"progressive": True}),
        "restart markers": (image, {"restart_marker_rows": 1}),
        "four inks": (image.convert("CMYK"), {}),
        "own tables": (image, {"optimize": True, "quality": 95}),
    }
    return {name: encode(shown, "JPEG", **more) for name, (shown, more) in options.items()}


JPEGS = _jpegs()
DAMAGES = {
    "half of it": lambda data: data[: len(data) // 2] + data[-2:],
    "a hole": lambda data: data[: len(data) // 3] + bytes(len(data) // 3) + data[-len(data) // 3 :],
    "a third less": lambda data: data[: len(data) // 3] + data[-len(data) // 3 :],
    "bytes of another file": lambda data: (
        data[: len(data) // 2] + bytes(range(1, 250)) * 8 + data[len(data) // 2 + 8 * 249 :]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_file_with_an_end_marker_and_damaged_data_is_truncated(name, damage):
    damaged = DAMAGES[damage](JPEGS[name])
    assert damaged.endswith(b"\xff\xd9")
    with pytest.raises(RadiographError, match=r"truncated: .* cut short or damaged"):
        read(damaged)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("ending", [b"", bytes(1), bytes(500)])
def test_zeros_ahead_of_the_end_marker_and_bytes_behind_it_are_no_damage(name, ending):
    whole = JPEGS[name]
    padded = whole[:-2] + ending + whole[-2:] + b"signature"
    assert np.array_equal(read(padded).pixels, read(whole).pixels)
    assert read(padded).warnings == read(whole).warnings == ()


# Damage


def _whole_files():
    grey = Image.fromarray(picture())
    rgb = grey.convert("RGB")
    return {
        "png": encode(grey, "PNG"),
        "jpeg": encode(grey, "JPEG"),
        "jpeg with a thumbnail": FILES["exif with a thumbnail.jpg"].data,
        "progressive": encode(rgb, "JPEG", progressive=True),
        "webp": encode(rgb, "WEBP"),
        "webp lossless": encode(rgb, "WEBP", lossless=True),
        "tiff": encode(grey, "TIFF"),
        "tiff lzw": encode(grey, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(grey, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encode(grey, "TIFF", compression="jpeg"),
        "bmp": encode(grey, "BMP"),
        "bmp rgb": encode(rgb, "BMP"),
    }


@pytest.mark.parametrize("name", _whole_files())
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about EXIF data that end early
def test_no_cut_file_gives_a_picture(name):
    whole = _whole_files()[name]
    expected = read(whole).pixels
    for length in [*range(1, len(whole) - 64, 3), *range(len(whole) - 64, len(whole))]:
        try:
            pixels = read(whole[:length]).pixels
        except RadiographError as error:
            assert error.reason in ("truncated", "not_an_image")
            assert error.reason == "truncated" or length < 18
        else:
            # TIFF ends with the offset of a next page, and sequential JPEG with its end marker:
            # all pixels are there without it.
            unneeded = 4 if name.startswith("tiff") else 2 if name.startswith("jpeg") else 0
            assert length >= len(whole) - unneeded and np.array_equal(pixels, expected)


def _memory(field: str) -> int:
    """Return a field of this process's status, in bytes."""
    (line,) = [
        line
        for line in pathlib.Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    ]
    return int(line.split()[1]) << 10


@pytest.fixture
def _within_a_gibibyte():
    """Fail a test that takes more than 1 GiB of memory on top of what the process had."""
    before = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    yield
    assert _memory("VmHWM") - before < 1 << 30


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(1, 6), st.sampled_from([0, 2]))
def test_the_fast_decoder_of_png_agrees_with_pillow(data, width, height, colour):
    kinds = data.draw(st.lists(st.integers(0, 5), min_size=height, max_size=height), "filters")
    random = np.random.default_rng(width)
    rows = [bytes([kind]) + random.bytes(width * (1 + colour)) for kind in kinds]
    packed = bytearray(zlib.compress(b"".join(rows) + bytes(data.draw(st.sampled_from([0, 9])))))
    del packed[len(packed) - data.draw(st.sampled_from([0, 0, 4, 9])) :]
    is_damaged = data.draw(st.booleans())
    if is_damaged:
        packed[data.draw(st.integers(2, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", packed[:7]), (b"IDAT", packed[7:]), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, bytes(part)) for name, part in parts)
    fast = decode_plain(file)
    if fast is None:
        assert is_damaged or max(kinds) > 4 or len(packed) < len(zlib.compress(b"".join(rows)))
        return
    # What zlib inflates of the rows, packed anew: Pillow compares a checksum that Rust leaves to
    # the chunks.
    size = height * (1 + width * (1 + colour))
    inflater, inflated = zlib.decompressobj(wbits=-15), b""
    with contextlib.suppress(zlib.error):  # damage behind the last row
        for byte in packed[2:]:
            inflated += inflater.decompress(bytes([byte]))
    whole = png([inflated[:size]], width, height, 8, colour)
    assert np.array_equal(fast, np.asarray(Image.open(io.BytesIO(whole))))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.usefixtures("_within_a_gibibyte")
@pytest.mark.filterwarnings("ignore")
def test_fuzz_nothing_but_our_own_exception(data):
    small = sorted(name for name, file in FILES.items() if len(file.data) < 40_000)
    content = bytearray(FILES[data.draw(st.sampled_from(small), "file")].data)
    for _ in range(data.draw(st.integers(1, 6), "changes")):
        # Half of the changes hit the first bytes, where the headers are.
        end = max(1, len(content)) if data.draw(st.booleans()) else min(len(content), 400) or 1
        place = data.draw(st.integers(0, end - 1), "place")
        change = data.draw(
            st.sampled_from(["flip", "set", "cut", "remove", "repeat", "splice"]),
            "change",
        )
        if change == "flip" and content:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "set":
            content[place : place + 4] = data.draw(st.binary(min_size=1, max_size=4))
        elif change == "cut":
            del content[place:]
        elif change == "remove":
            del content[place : place + data.draw(st.integers(1, 64))]
        elif change == "repeat":
            content[place:place] = content[place : place + data.draw(st.integers(1, 200))]
        elif change == "splice":
            other = FILES[data.draw(st.sampled_from(small), "other")].data
            content[place:] = other[min(place, len(other)) :]
    try:
        assert load(bytes(content), 16).shape == (16, 16, 1)
    except RadiographError as error:
        assert error.reason in radiograph.REASONS


@given(st.binary(max_size=300))
def test_fuzz_of_noise(content):
    try:
        read(content)
    except RadiographError as error:
        assert error.reason in radiograph.REASONS


MEASURE = """
import pathlib, sys
from trainer import radiograph
print(radiograph.read(sys.stdin.buffer.read()).pixels.shape)
status = pathlib.Path("/proc/self/status").read_text().splitlines()
print([line.split()[1] for line in status if line.startswith("VmHWM")][0])
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="reads the peak memory of a process from /proc",
)
@pytest.mark.parametrize("kind", ["transparent", "progressive", "deep"])
def test_a_hundred_megapixels_decode_within_a_gibibyte(kind):
    side = 10_000
    if kind == "progressive":
        # libjpeg holds every coefficient of three full planes until the last scan.
        data = encode(Image.new("RGB", (side, side)), "JPEG", progressive=True, subsampling=0)
    else:
        channels, bits, colour = (4, 8, 6) if kind == "transparent" else (3, 16, 2)
        row = bytes(channels * bits // 8 * side + 1)
        data = png([row] * side, side, side, bits, colour)
    # The peak of a fresh process: Python, NumPy, OpenCV, pydicom and the file included.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True
    )
    shape, kibibytes = done.stdout.decode().splitlines()
    assert shape == "(10000, 10000)" and int(kibibytes) < 1 << 20


def test_a_tile_larger_than_the_picture_is_refused():
    # libtiff would allocate a buffer for the whole tile.
    tags = {
        256: 8,
        257: 8,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: 1 << 15,
        323: 1 << 15,
        324: 200,
        325: 20,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(RadiographError) as caught:
        read(data.ljust(300, b"\0"))
    assert caught.value.reason == "too_large"


# Real radiographs


def test_real_radiographs(shared):
    folder = shared / "data" / "fracatlas_shoulder"
    rows = list(csv.DictReader((folder / "labels.csv").open(encoding="utf-8")))
    refused, turned = {}, []
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        try:
            found = read(data)
        except RadiographError as error:
            refused[row["file"]] = error.reason
            continue
        if found.pixels.shape != (int(row["height"]), int(row["width"])):
            turned.append(row["file"])
        assert letterbox(found.pixels, 64).std() > 5
    assert len(rows) == 349
    assert refused == {row["file"]: "truncated" for row in rows if row["decodable"] == "0"}
    assert len(refused) == 6
    # Two carry an EXIF orientation; the masks of the second are drawn on the turned picture.
    assert turned == [
        "images/negative/IMG0000439.jpg",
        "images/positive/IMG0002628.jpg",
    ]
