"""DICOM to grey: hand-computed windows and tables, pydicom's own functions, real files, privacy."""

import io
import logging
import pathlib
import struct
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import encaps, uid
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing
from pydicom.pixels.decoders import base as decoders

from tests.support.dicom_files import (
    PATIENT,
    STUDY_UID,
    bad_dicom_files,
    dicom_file,
    good_dicom_files,
)
from tests.support.image_files import image_files
from tests.support.pictures import encode, picture
from trainer.decoding import dicom
from trainer.radiograph import RadiographError, frames, read

STORED = np.array([[0, 1, 2, 3, 4, 5]], np.uint16)


def grey(stored, **attributes):
    return read(dicom_file(stored, **attributes)).pixels.tolist()


def real(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path, f"{name} is missing from the installed packages pydicom and pydicom-data"
    return pathlib.Path(str(path)).read_bytes()


# Display, by hand


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # Ramp of width 3 around 2.5: 1 is black, then 85 per step.
        ({}, [0, 0, 85, 170, 255, 255]),
        ({"VOILUTFunction": "LINEAR"}, [0, 0, 85, 170, 255, 255]),
        # Ramp of width 4 around 3: 63.75 per step; 127.5 rounds to even.
        ({"VOILUTFunction": "LINEAR_EXACT"}, [0, 0, 64, 128, 191, 255]),
        # 255 / (1 + exp(3 - x)).
        ({"VOILUTFunction": " SIGMOID"}, [12, 30, 69, 128, 186, 225]),
        ({"VOILUTFunction": "SIGMOID"}, [12, 30, 69, 128, 186, 225]),
    ],
)
def test_windows(function, expected):
    assert grey(STORED, WindowCenter=3, WindowWidth=4, **function) == [expected]


def test_a_window_of_width_one_is_a_threshold():
    assert grey(STORED, WindowCenter=3, WindowWidth=1) == [[0, 0, 0, 255, 255, 255]]


def test_the_first_of_several_windows():
    assert grey(STORED, WindowCenter=[3, 0], WindowWidth=[4, 1]) == [[0, 0, 85, 170, 255, 255]]


def test_the_rescale_comes_before_the_window():
    # Modality values -10, -8, -6, -4, -2, 0.
    assert grey(STORED, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=-4, WindowWidth=5) == [
        [0, 0, 32, 159, 255, 255]
    ]


def test_signed_values():
    stored = np.array([[-3, -2, -1, 0, 1, 2]], np.int16)
    assert grey(stored, WindowCenter=0, WindowWidth=4) == [[0, 0, 85, 170, 255, 255]]


def test_a_modality_table_and_a_voi_table():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = (
        [3, 2, 8],
        [10, 20, 255],
    )  # values up to 2, 3, and from 4 on
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    expected = [[10, 10, 10, 20, 255, 255]]
    assert grey(STORED, VOILUTSequence=[table]) == expected
    assert (
        grey(STORED, VOILUTSequence=[table], WindowCenter=0, WindowWidth=1) == expected
    )  # the table goes first
    assert grey(STORED, ModalityLUTSequence=[table], WindowCenter=128, WindowWidth=256) == expected
    table.LUTDescriptor, table.LUTData = [2, 0, 12], [0, 4095]
    assert grey(STORED, VOILUTSequence=[table]) == [[0, 255, 255, 255, 255, 255]]


@pytest.mark.parametrize(
    "attributes",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PresentationLUTShape": " INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ],
)
def test_two_ways_to_ask_for_one_inversion(attributes):
    assert grey(STORED, WindowCenter=3, WindowWidth=4, **attributes) == [[255, 255, 170, 85, 0, 0]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_after_all(photometric):
    common = {"PhotometricInterpretation": photometric, "WindowCenter": 3, "WindowWidth": 4}
    plain = np.array(grey(STORED, **common))
    assert grey(STORED, PixelPaddingValue=5, **common) == np.where(STORED == 5, 0, plain).tolist()
    padded = grey(STORED, PixelPaddingValue=5, PixelPaddingRangeLimit=3, **common)
    assert padded == np.where(STORED >= 3, 0, plain).tolist()


def test_without_a_window_the_percentiles_of_the_picture():
    stored = (
        np.concatenate([np.arange(1000, 2000), np.full(3000, 60_000)])
        .astype(np.uint16)
        .reshape(50, 80)
    )
    pixels = np.array(grey(stored, PixelPaddingValue=60_000)).ravel()
    # 0.5 and 99.5 % of the thousand values that are no padding: 1004 to 1994.
    expected = np.clip((np.arange(1000, 2000) - 1004) / 990, 0, 1) * 255
    assert np.abs(pixels[:1000] - expected).max() <= 0.5 + 1e-6 and not pixels[1000:].any()


def test_pictures_of_one_value_are_defined():
    assert np.unique(grey(np.full((3, 3), 77, np.uint16))).size == 1
    assert not np.any(grey(np.full((3, 3), 77, np.uint16), PixelPaddingValue=77))


@pytest.mark.parametrize("width", [0, -5, 0.5, "", None])
def test_a_window_that_is_none_counts_as_missing(width):
    assert grey(STORED, WindowCenter=3, WindowWidth=width) == grey(STORED)


@pytest.mark.parametrize("number", [b"1111.0", b"2222.0"], ids=["centre", "width"])
def test_a_window_in_words_counts_as_missing(number):
    data = dicom_file(STORED, WindowCenter=1111, WindowWidth=2222)
    found = read(data.replace(number, b"AUTO  "))
    assert found.pixels.tolist() == grey(STORED) and found.warnings == ("ignored_element",)


def replace_text(old: bytes, new: bytes, **attributes) -> bytes:
    """Return a DICOM file in whose elements `old` is replaced by malformed text of that length."""
    assert len(old) == len(new)
    return dicom_file(STORED, **attributes).replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "attributes"),
    [
        (b"3.000", b"3,000", {"WindowCenter": "3.000", "WindowWidth": "4"}),
        (b"1.000", b"1,000", {"RescaleSlope": "1.000", "RescaleIntercept": "0"}),
        (b"0.143\\0.143", b"0,143\\0,143", {"ImagerPixelSpacing": ["0.143", "0.143"]}),
    ],
)
def test_a_decimal_comma_is_read_as_a_point(old, new, attributes):
    found = read(replace_text(old, new, **attributes))
    assert found.pixels.tolist() == grey(STORED, **attributes) and not found.warnings


@pytest.mark.parametrize(
    ("old", "new", "attributes"),
    [
        (b"0.143\\0.143", b"0.143\\     ", {"PixelSpacing": ["0.143", "0.143"]}),
        (b"0.143\\0.143", b"          \\", {"PixelSpacing": ["0.143", "0.143"]}),
        (b"0.143\\0.143", b"0.1\\0.2\\0.1", {"PixelSpacing": ["0.143", "0.143"]}),
        (b"0.143\\0.143", b"abcde\\fghij", {"ImagerPixelSpacing": ["0.143", "0.143"]}),
        (b"0.143\\0.143", b"0.000\\0.000", {"PixelSpacing": ["0.143", "0.143"]}),
        (b"7.5\\8.5 ", b"7:5 / 8:", {"PixelAspectRatio": None, "PixelSpacing": "7.5\\8.5"}),
    ],
)
def test_a_malformed_element_that_no_picture_needs_is_ignored(old, new, attributes):
    found = read(replace_text(old, new, **attributes))
    assert found.pixels.tolist() == grey(STORED) and found.warnings == ("ignored_element",)


@pytest.mark.parametrize(
    ("old", "new", "attributes"),
    [
        (b"1.000 ", b"steep ", {"RescaleSlope": "1.000 ", "RescaleIntercept": "0"}),
        (b"77.00 ", b"deep  ", {"RescaleSlope": "1", "RescaleIntercept": "77.00"}),
    ],
)
def test_an_element_that_matters_is_named_when_it_is_unusable(old, new, attributes):
    keyword = "RescaleSlope" if new == b"steep " else "RescaleIntercept"
    with pytest.raises(RadiographError, match=f"bad_dicom: the {keyword} of the DICOM file is not"):
        read(replace_text(old, new, **attributes))


def test_functional_groups_say_how_a_frame_is_shown():
    def group(**attributes):
        item, inner = pydicom.Dataset(), pydicom.Dataset()
        for keyword, value in attributes.items():
            setattr(inner, keyword, value)
        name = (
            "FrameVOILUTSequence"
            if "WindowCenter" in attributes
            else "PixelValueTransformationSequence"
        )
        setattr(item, name, [inner])
        return item

    stored = np.array([[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]], np.uint16)
    data = dicom_file(
        stored,
        NumberOfFrames=2,
        Rows=2,
        SharedFunctionalGroupsSequence=[group(RescaleSlope=1, RescaleIntercept=10)],
        PerFrameFunctionalGroupsSequence=[
            group(WindowCenter=13, WindowWidth=4),
            group(WindowCenter=14, WindowWidth=4, VOILUTFunction="LINEAR_EXACT"),
        ],
        WindowCenter=0,
        WindowWidth=1,
    )
    # As in `test_windows`, ten higher; the second a step to the right.
    number, frame = frames(data)
    assert [frame(index).pixels.tolist() for index in range(number)] == [
        [[0, 0, 85], [170, 255, 255]],
        [[0, 0, 0], [64, 128, 191]],
    ]


# Encodings


@pytest.mark.parametrize("bits", range(9, 17))
def test_every_depth_fills_its_range(bits):
    full = (1 << bits) - 1
    stored = np.rint(picture() * (full / 255)).astype(np.uint16)
    data = dicom_file(
        stored, BitsStored=bits, HighBit=bits - 1, WindowCenter=(full + 1) / 2, WindowWidth=full + 1
    )
    assert np.array_equal(read(data).pixels, picture())


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_unused_bits_are_not_seen(dtype, syntax):
    stored = np.array([[-3, -2, -1, 0, 1, 2]], np.int16) + (3 if dtype == np.uint16 else 0)
    window = {"WindowCenter": 3 if dtype == np.uint16 else 0, "WindowWidth": 4, "BitsStored": 10}
    expected = [[0, 0, 85, 170, 255, 255]]
    overlay = np.array([[0x8000, 0, 0x7C00, 0x0400, 0, 0xFC00]], np.uint16)
    low = (stored.astype(np.uint16) & 0x3FF | overlay).view(dtype)
    assert read(dicom_file(low, syntax, HighBit=9, **window)).pixels.tolist() == expected
    left = (stored.astype(np.uint16) << 6 | overlay >> 10).view(dtype)
    assert read(dicom_file(left, syntax, HighBit=15, **window)).pixels.tolist() == expected
    assert read(dicom_file(low, syntax, HighBit=99, **window)).pixels.tolist() == expected


SYNTAXES = {
    uid.ImplicitVRLittleEndian: "MR_small_implicit.dcm",
    uid.ExplicitVRLittleEndian: "693_UNCI.dcm",
    uid.DeflatedExplicitVRLittleEndian: "image_dfl.dcm",
    uid.ExplicitVRBigEndian: "MR_small_bigendian.dcm",
    uid.JPEGBaseline8Bit: "SC_rgb_dcmtk_+eb+cr.dcm",
    uid.JPEGExtended12Bit: "JPGExtended.dcm",
    uid.JPEGLossless: "JPEG-LL.dcm",
    uid.JPEGLosslessSV1: "JPGLosslessP14SV1_1s_1f_8b.dcm",
    uid.JPEGLSLossless: "MR_small_jpeg_ls_lossless.dcm",
    uid.JPEGLSNearLossless: "JPEGLSNearLossless_16.dcm",
    uid.JPEG2000Lossless: "693_J2KR.dcm",
    uid.JPEG2000: "693_J2KI.dcm",
    uid.RLELossless: "MR_small_RLE.dcm",
}
"""A real file of each syntax. The packages have none of HTJ2K, and no encoder."""


def test_every_syntax_with_a_plug_in_is_tested_but_htj2k():
    available = {
        syntax
        for syntax, (decoder, _) in decoders._PIXEL_DATA_DECODERS.items()
        if decoder.is_available
    }
    assert available - set(SYNTAXES) == {uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL}


@pytest.mark.parametrize(("syntax", "name"), SYNTAXES.items(), ids=SYNTAXES.values())
def test_every_transfer_syntax_with_a_plug_in_is_read(syntax, name):
    data = real(name)
    # The file's process is a special case of the general one, JPEG lossless.
    if syntax == uid.JPEGLossless:
        data = data.replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.57")
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == syntax
    assert read(data).pixels.std() > 5


@pytest.mark.parametrize(
    ("modality", "warnings"),
    [
        *((name, ()) for name in ("CR", "DX", "OT", None, "DOE^JOHN")),
        *((name, ("other_modality",)) for name in ("CT", "MR", "US", "PT")),
    ],
)
def test_a_modality_that_is_not_radiography_is_a_warning(modality, warnings):
    assert read(dicom_file(picture(), Modality=modality)).warnings == warnings


# Frames


@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless, uid.JPEG2000Lossless],
)
def test_each_frame_of_a_multi_frame_file(syntax):
    single = [picture(), 255 - picture(), picture()[::-1].copy()]
    data = dicom_file(
        np.vstack(single),
        syntax,
        NumberOfFrames=3,
        Rows=picture().shape[0],
        WindowCenter=128,
        WindowWidth=256,
    )
    with pytest.raises(
        RadiographError, match="unsupported: expected one picture, the DICOM file holds 3 frames"
    ):
        read(data)
    number, frame = frames(data)
    for index in (2, 0, 1, 0):  # in any order, and again
        found = frame(index)
        assert np.array_equal(found.pixels, single[index])
        assert found.tags["body_part"] == "HUMERUS" and found.source_format == "DICOM"
    assert number == 3


@pytest.mark.parametrize(
    "name",
    [
        "emri_small.dcm",
        "emri_small_RLE.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    ],
)
def test_frames_of_real_multi_frame_files_agree_with_pydicom(name):
    stored = pydicom.dcmread(get_testdata_file(name, download=False)).pixel_array.astype(float)
    number, frame = frames(real(name))
    assert number == len(stored) == 10
    for index in (0, 9):
        low, high = np.percentile(stored[index], (0.5, 99.5), method="inverted_cdf")
        expected = np.clip((stored[index] - low) / (high - low), 0, 1) * 255
        assert np.abs(frame(index).pixels - expected).max() <= 0.51


def test_a_damaged_frame_costs_no_other():
    good, bad = encode(picture(), "JPEG"), encode(np.zeros((8, 8), np.uint8), "JPEG")
    data = dicom_file(
        picture(),
        uid.JPEGBaseline8Bit,
        NumberOfFrames=3,
        PixelData=encaps.encapsulate([good, bad, good]),
    )
    _, frame = frames(data)
    assert np.array_equal(frame(0).pixels, frame(2).pixels)
    with pytest.raises(RadiographError, match=r"bad_dicom: .* encoded pixel data contradict"):
        frame(1)


def test_jpeg_of_8_bits_is_read_where_the_data_set_allocates_16():
    frame = encode(picture(), "JPEG")
    data = dicom_file(
        picture().astype(np.uint16),
        uid.JPEGBaseline8Bit,
        BitsStored=8,
        HighBit=7,
        WindowCenter=128,
        WindowWidth=256,
        PixelData=encaps.encapsulate([frame]),
    )
    found, expected = read(data).pixels, read(frame).pixels
    assert np.abs(found.astype(int) - expected).max() <= 1  # two implementations of the IDCT


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_point_pixels_are_named(keyword):
    file = dicom_file(None, **{keyword: bytes(8 * picture().size)})
    with pytest.raises(RadiographError, match=r"^unsupported: .* are floating-point"):
        read(file)


def test_empty_pixel_data_are_named():
    with pytest.raises(RadiographError, match=r"^bad_dicom: expected pixel data, .* has none"):
        read(dicom_file(picture(), PixelData=b""))


@pytest.mark.parametrize("missing", [10, 200])
def test_jpeg_2000_that_is_cut_short_is_truncated(missing):
    whole = pydicom.dcmread(io.BytesIO(dicom_file(picture(), uid.JPEG2000Lossless)))
    (frame,) = encaps.generate_frames(whole.PixelData, number_of_frames=1)
    cut = encaps.encapsulate([frame.rstrip(b"\0")[:-missing]])
    with pytest.raises(RadiographError, match=r"^truncated: .* pixel data end early"):
        read(dicom_file(picture(), uid.JPEG2000Lossless, PixelData=cut))


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_frame_needs_all_rows_but_no_end_marker(missing):
    whole = encode(picture(), "JPEG")
    expected, found = (
        read(dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=encaps.encapsulate([frame])))
        for frame in (whole, whole[:-missing])
    )
    assert np.array_equal(found.pixels, expected.pixels)
    assert (expected.warnings, found.warnings) == ((), ("no_end_marker",))


def test_a_jpeg_frame_with_a_hole_is_truncated():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, picture().shape).astype(np.uint8)
    whole = encode(pixels, "JPEG")
    third = len(whole) // 3
    holed = whole[:third] + bytes(third) + whole[2 * third :]
    frame = encaps.encapsulate([holed])
    with pytest.raises(
        RadiographError, match=r"truncated: the JPEG data of the DICOM file: cut short or damaged"
    ):
        read(dicom_file(pixels, uid.JPEGBaseline8Bit, PixelData=frame))


@pytest.mark.parametrize("missing", [6, 7, 50, 150])
def test_a_cut_jpeg_frame_is_truncated(missing):
    frame = encaps.encapsulate([encode(picture(), "JPEG")[:-missing]])
    with pytest.raises(RadiographError, match="truncated: the JPEG data of the DICOM file"):
        read(dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=frame))


@pytest.mark.parametrize("kind", [None, "cut"])
@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        (uid.MediaStorageDirectoryStorage, "Media Storage Directory Storage"),
        (uid.BasicTextSRStorage, "Basic Text SR Storage"),
        (uid.ComprehensiveSRStorage, "Comprehensive SR Storage"),
        (uid.EncapsulatedPDFStorage, "Encapsulated PDF Storage"),
        (uid.EncapsulatedCDAStorage, "Encapsulated CDA Storage"),
        (uid.TwelveLeadECGWaveformStorage, "12-lead ECG Waveform Storage"),
    ],
)
def test_a_file_of_a_class_without_pixels_is_named(sop_class, name, kind):
    document = {"EncapsulatedDocument": b"%PDF-1.7\n" * 20} if "Encapsulated" in name else {}
    data = dicom_file(None, SOPClassUID=sop_class, **document)
    with pytest.raises(
        RadiographError, match=f"bad_dicom: .* not a picture but of the class {name}"
    ):
        read(data if kind is None else data[:-30])


def test_an_image_class_without_pixels_is_no_document():
    with pytest.raises(RadiographError, match="bad_dicom: expected pixel data"):
        read(dicom_file(None))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("encapsulated", [False, True])
def test_compressed_pixels_under_an_uncompressed_syntax_are_named(syntax, encapsulated):
    stored = np.zeros((200, 200), np.uint8)
    frame = encode(stored, "JPEG")
    content = encaps.encapsulate([frame]) if encapsulated else frame
    with pytest.raises(
        RadiographError, match=r"bad_dicom: .* are compressed, its transfer syntax says not"
    ):
        read(dicom_file(stored, syntax, PixelData=content + b"\0" * (len(content) % 2)))


def test_frames_that_are_not_there():
    encoded = encaps.encapsulate([encode(picture(), "JPEG")])
    with pytest.raises(
        RadiographError, match="bad_dicom: the DICOM data set announces 1000000000 frames"
    ):
        frames(
            dicom_file(
                picture(), uid.JPEGBaseline8Bit, NumberOfFrames=1_000_000_000, PixelData=encoded
            )
        )
    with pytest.raises(RadiographError, match="bad_dicom: the DICOM data set announces -1 frames"):
        frames(dicom_file(picture(), NumberOfFrames=-1))
    with pytest.raises(RadiographError, match=r"truncated: expected .* bytes of DICOM pixel data"):
        frames(dicom_file(picture(), NumberOfFrames=3))
    number, frame = frames(image_files()["grey.png"].data)
    assert number == 1 and frame(0).source_format == "PNG"


def test_many_frames_cost_no_memory_before_one_is_decoded():
    data = dicom_file(np.zeros((1, 1_000_000), np.uint8), Columns=1, NumberOfFrames=1_000_000)
    tracemalloc.start()
    number, _ = frames(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == 1_000_000 and peak < 5 * len(data)


@pytest.mark.parametrize(
    "name",
    ["explicit.dcm", "big endian.dcm", "deflated.dcm", "rle.dcm", "jpeg-ls.dcm", "jpeg 2000.dcm"],
)
def test_every_lossless_syntax_gives_the_same_pixels(name):
    assert np.array_equal(
        read(good_dicom_files()[name]).pixels, read(good_dicom_files()["implicit.dcm"]).pixels
    )


@pytest.mark.parametrize(
    "name", ["no preamble.dcm", "no preamble implicit", "dual with a tiff header.dcm"]
)
def test_every_wrapping_gives_the_same_pixels(name):
    assert np.array_equal(
        read(good_dicom_files()[name]).pixels, read(good_dicom_files()["no window.dcm"]).pixels
    )


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "693_UNCI.dcm",
        "693_J2KR.dcm",
        "MR2_J2KI.dcm",
        "MR_small_RLE.dcm",
        "JPGExtended.dcm",
    ],
)
def test_windows_agree_with_pydicom(name):
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    stored = dataset.pixel_array
    padding = stored == dataset.get("PixelPaddingValue", 1 << 20)
    if "WindowCenter" not in dataset:
        dataset.WindowCenter, dataset.WindowWidth = int(np.median(stored)), int(np.ptp(stored)) // 2
    shown = apply_windowing(apply_modality_lut(stored, dataset), dataset)
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    ends = np.array(
        [-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1], float
    )
    low, high = ends * dataset.get("RescaleSlope", 1) + dataset.get("RescaleIntercept", 0)
    expected = np.where(padding, 0, (shown - low) / (high - low) * 255)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert np.abs(read(buffer.getvalue()).pixels - expected).max() <= 0.51


def test_real_tables_agree_with_pydicom():
    dataset = pydicom.dcmread(get_testdata_file("vlut_04.dcm", download=False))
    bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
    expected = apply_voi(dataset.pixel_array, dataset) / ((1 << bits) - 1) * 255
    assert np.abs(read(real("vlut_04.dcm")).pixels - expected).max() <= 0.51
    # The same test pattern, once with a modality table and once with a VOI table.
    assert (
        np.abs(
            read(real("mlut_18.dcm")).pixels.astype(int) - read(real("vlut_04.dcm")).pixels
        ).max()
        <= 1
    )


@pytest.mark.parametrize("name", ["OBXXXX1A.dcm", "examples_palette.dcm", "gdcm-US-ALOKA-16.dcm"])
def test_palettes_agree_with_pydicom(name):
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    colours = apply_color_lut(dataset.pixel_array, dataset)
    colours = (colours >> 8 * (colours.itemsize - 1)).astype(np.uint8)
    assert np.array_equal(
        read(real(name)).pixels, np.asarray(Image.fromarray(colours[..., :3]).convert("L"))
    )


COLOUR = """
    SC_rgb_16bit.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit.dcm SC_ybr_full_uncompressed.dcm
    SC_ybr_full_422_uncompressed.dcm SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+np.dcm
    SC_rgb_gdcm_KY.dcm SC_rgb_gdcm2k_uncompressed.dcm SC_rgb_jls_lossy_line.dcm
"""


@pytest.mark.parametrize("name", COLOUR.split())
def test_one_colour_picture_in_many_encodings(name):
    reference = read(real("SC_rgb.dcm"))
    assert np.abs(read(real(name)).pixels.astype(int) - reference.pixels).max() <= 3
    stored = pydicom.dcmread(get_testdata_file("SC_rgb.dcm", download=False)).pixel_array
    assert np.abs(reference.pixels - stored @ [0.299, 0.587, 0.114]).max() <= 1


def test_pixel_data_that_end_early_are_truncated():
    with pytest.raises(
        RadiographError, match="truncated: expected 8,192 bytes of DICOM pixel data, found 8,130"
    ):
        read(real("MR_truncated.dcm"))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_no_cut_file_gives_another_picture(name):
    whole = real(name)
    expected = read(whole).pixels
    pixel_data = whole.index(b"\xe0\x7f\x10\x00")
    for length in [*range(140, len(whole), 97), *range(len(whole) - 200, len(whole), 7)]:
        try:
            pixels = read(whole[:length]).pixels
        except RadiographError as error:
            assert error.reason in (
                ("truncated",) if length > pixel_data + 12 else ("truncated", "bad_dicom")
            )
        else:  # only what follows the pixel data is missing
            assert length > len(whole) - 200 and np.array_equal(pixels, expected)


# Real radiographs


@pytest.mark.parametrize("name", ["RG1_UNCI.dcm", "RG1_J2KI.dcm", "RG1_UNCR.dcm", "RG1_J2KR.dcm"])
def test_real_chest(name):
    found = read(real(name))
    height, width = found.pixels.shape
    assert (height, width, found.source_mode) == (1955, 1841, "monochrome1")
    assert dict(found.tags) == {
        "modality": "CR",
        "body_part": "CHEST",
        "view": "PA",
        "study_uid": found.tags["study_uid"],
    }

    def mean(top, bottom, left, right):
        return found.pixels[
            int(top * height) : int(bottom * height), int(left * width) : int(right * width)
        ].mean()

    spine, lung = mean(0.45, 0.6, 0.46, 0.52), mean(0.2, 0.3, 0.62, 0.72)
    assert spine > lung + 50


@pytest.mark.parametrize("name", ["RG3_UNCI.dcm", "RG3_J2KI.dcm", "RG3_UNCR.dcm", "RG3_J2KR.dcm"])
def test_real_tibia(name):
    found = read(real(name))
    height, width = found.pixels.shape
    assert (height, width) == (1760, 1760)

    def mean(top, bottom, left, right):
        return found.pixels[
            int(top * height) : int(bottom * height), int(left * width) : int(right * width)
        ].mean()

    cortex, muscle, air = (
        mean(0.3, 0.35, 0.455, 0.465),
        mean(0.3, 0.35, 0.4, 0.43),
        mean(0.3, 0.35, 0.29, 0.33),
    )
    assert cortex > muscle + 20 > air + 60 and air < 40


@pytest.mark.parametrize(
    "pair", [("RG1_UNCI.dcm", "RG1_J2KI.dcm"), ("RG3_UNCR.dcm", "RG3_J2KR.dcm")]
)
def test_real_files_are_the_same_plain_and_encoded(pair):
    plain, encoded = (read(real(name)).pixels.astype(int) for name in pair)
    assert np.abs(plain - encoded).max() <= 1


# Privacy


def test_tags_are_four_harmless_ones():
    found = read(dicom_file(picture()))
    assert found.tags == {
        "modality": "CR",
        "body_part": "HUMERUS",
        "view": "AP",
        "study_uid": STUDY_UID,
    }
    assert read(dicom_file(picture(), BodyPartExamined=None, ViewPosition="")).tags == {
        "modality": "CR",
        "study_uid": STUDY_UID,
    }
    assert not read(image_files()["grey.png"].data).tags


def test_free_text_in_a_coded_attribute_is_left_out():
    odd = {
        "BodyPartExamined": "Left arm of Planted^Patient",
        "ViewPosition": "ap, see note",
        "StudyInstanceUID": "Planted",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dicom_file(picture(), **odd)
    assert read(data).tags == {"modality": "CR"}


def test_a_name_in_capitals_is_no_code():
    names = {
        "Modality": "DOE",
        "BodyPartExamined": "DOE JOHN 010203",
        "ViewPosition": "MRN 4711 22",
    }
    assert read(dicom_file(picture(), **names)).tags == {"study_uid": STUDY_UID}


def test_no_patient_value_reaches_an_error_a_log_or_a_stream(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    contents = [*good_dicom_files().values(), *(data for data, _ in bad_dicom_files().values())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Values that break the rules of their type make pydicom warn, and quote them.
        contents.append(
            dicom_file(
                picture(),
                PatientBirthDate="Planted date",
                PatientID="PLANTED" * 20,
                WindowWidth=None,
            )
        )
    contents.append(contents[-1].replace(b"MONOCHROME2", b"Planted^^^^"))
    contents += [data[:-length] for data in contents[-2:] for length in (10, 2000, 2700)]
    pydicom.dcmread(io.BytesIO(contents[-1])).PatientBirthDate  # noqa: B018, to see that there is something to keep quiet
    assert "Planted date" in caplog.text
    caplog.clear()
    capfd.readouterr()
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in contents:
            try:
                found = read(data)
                said += [repr(found.tags), found.source_mode]
            except RadiographError as error:
                said += [repr(error), str(error), repr(error.__cause__)]
    streams = capfd.readouterr()
    everything = "\n".join(
        [
            *said,
            caplog.text,
            streams.out,
            streams.err,
            *(str(warning.message) for warning in caught),
        ]
    )
    assert len(said) > 40
    assert not [
        value for value in (*PATIENT.values(), "planted") if value.lower() in everything.lower()
    ]


def test_reading_in_threads_changes_nothing():
    contents = [data for name, data in good_dicom_files().items()] * 3
    alone = [read(data).pixels for data in contents]
    logger = logging.getLogger("pydicom")
    before = (warnings.filters[:], logger.handlers[:], logger.propagate)
    results: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for index in range(start, len(contents), 4):
            results[index] = read(contents[index]).pixels

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[index], pixels) for index, pixels in enumerate(alone))
    assert before == (warnings.filters[:], logger.handlers[:], logger.propagate)


def test_files_are_decoded_beside_each_other(monkeypatch):
    """Two threads, neither of which goes on before the other is decoding too."""
    both, original = threading.Barrier(2, timeout=30), dicom.grey

    def meet(*arguments):
        both.wait()
        return original(*arguments)

    monkeypatch.setattr(dicom, "grey", meet)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(read, [dicom_file(picture())] * 2)
    assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("stored", [9, 10, 12, 16])
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_rle_gives_what_the_same_cells_give_uncompressed(stored, is_signed, is_shifted):
    """RLE holds whole cells (PS3.5 G.2), so the place of the used bits counts."""
    values = np.random.default_rng(stored).integers(0, 1 << stored, (16, 16))
    values -= is_signed << stored - 1
    cells = (values << (16 - stored if is_shifted else 0)).astype("<i2" if is_signed else "<u2")
    described = {
        "BitsStored": stored,
        "HighBit": 15 if is_shifted else stored - 1,
        "WindowCenter": 0 if is_signed else 1 << stored - 1,
        "WindowWidth": 1 << stored,
    }
    files = [
        dicom_file(cells, syntax, **described)
        for syntax in (uid.ExplicitVRLittleEndian, uid.RLELossless)
    ]
    plain, packed = (read(file).pixels for file in files)
    assert np.array_equal(plain, packed) and np.ptp(plain) > 200


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("highest", [11, 13, 15])
@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_codec_keeps_the_unused_bits_of_cells(syntax, highest, is_signed):
    """Twelve bits are stored somewhere in sixteen, with other bits above and below them."""
    random = np.random.default_rng(highest)
    values = random.integers(0, 4096, (64, 64)) - (2048 if is_signed else 0)
    unused = random.integers(0, 1 << 16, values.shape) & ~(0xFFF << (highest - 11))
    cells = ((values & 0xFFF) << (highest - 11) | unused).astype(np.uint16)
    described = {
        "PixelRepresentation": int(is_signed),
        "BitsStored": 12,
        "HighBit": highest,
        "WindowCenter": 0 if is_signed else 2048,
        "WindowWidth": 4096,
    }
    whole = pydicom.dcmread(io.BytesIO(dicom_file(cells, syntax)))
    encoded = dicom_file(cells, syntax, PixelData=whole.PixelData, **described)
    plain = read(dicom_file(cells, **described)).pixels
    assert np.array_equal(read(encoded).pixels, plain) and np.ptp(plain) > 200


def test_rle_may_hold_the_bytes_that_jpeg_2000_begins_with():
    pixels = picture().copy()
    pixels[1, 2:8] = [0xFF, 0x4F, 0xFF, 0x51, 0, 0x29]
    window = {"WindowCenter": 128, "WindowWidth": 256}
    assert np.array_equal(
        read(dicom_file(pixels, uid.RLELossless, **window)).pixels,
        read(dicom_file(pixels, **window)).pixels,
    )


@pytest.mark.parametrize("padding", [65535, 256, 40000])
def test_padding_that_no_pixel_can_have_paints_nothing_black(padding):
    stored = np.array([[0, 1, 254, 255]], np.uint8)
    assert grey(stored, PixelPaddingValue=padding, WindowCenter=128, WindowWidth=256) == [
        [0, 1, 254, 255]
    ]


@pytest.mark.parametrize("written", [" MONOCHROME1", "MONOCHROME1 ", "monochrome1"])
def test_the_polarity_does_not_depend_on_space_or_case(written):
    window = {"WindowCenter": 128, "WindowWidth": 256}
    file = dicom_file(picture(), PhotometricInterpretation=written, **window)
    plain = dicom_file(picture(), PhotometricInterpretation="MONOCHROME1", **window)
    assert np.array_equal(read(file).pixels, read(plain).pixels)


def test_no_frames_are_one():
    found = read(dicom_file(picture(), NumberOfFrames=0, WindowCenter=128, WindowWidth=256))
    assert np.array_equal(found.pixels, picture()) and found.warnings == ("ignored_element",)


def _item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize(
    "offsets",
    [b"", bytes(4), bytes(8), b"\4\0\0\0", b"\xff\xff\xff\xff", bytes(6), bytes(range(12))],
    ids=lambda offsets: offsets.hex() or "none",
)
@pytest.mark.parametrize("fragments", [1, 2, 3])
def test_a_single_frame_has_all_fragments_whatever_the_table_of_offsets_says(offsets, fragments):
    whole = pydicom.dcmread(io.BytesIO(dicom_file(picture(), uid.JPEG2000Lossless)))
    stream = encaps.get_frame(whole.PixelData, 0, number_of_frames=1)
    cuts = [2 * (part * len(stream) // fragments // 2) for part in range(fragments)]
    parts = [stream[a:b] for a, b in zip(cuts, [*cuts[1:], None], strict=True)]
    data = _item(offsets) + b"".join(_item(part + b"\0" * (len(part) % 2)) for part in parts)
    file = dicom_file(picture(), uid.JPEG2000Lossless, PixelData=data)
    expected = read(dicom_file(picture(), uid.JPEG2000Lossless)).pixels
    assert np.array_equal(read(file).pixels, expected)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless])
@pytest.mark.parametrize("length", [0, 0.5, 1])
@pytest.mark.parametrize("offset", [0, 8, 9999])
def test_an_extended_table_of_offsets_does_not_choose_the_bytes_of_a_single_frame(
    syntax, length, offset
):
    is_jpeg = syntax == uid.JPEGBaseline8Bit
    whole = pydicom.dcmread(io.BytesIO(dicom_file(picture(), uid.JPEG2000Lossless)))
    stream = (
        encode(picture(), "JPEG")
        if is_jpeg
        else encaps.get_frame(whole.PixelData, 0, number_of_frames=1)
    )
    data = encaps.encapsulate([stream])
    size = int(length * len(stream))
    tables = {
        "offsets": pydicom.DataElement(0x7FE00001, "OV", struct.pack("<Q", offset)),
        "lengths": pydicom.DataElement(0x7FE00002, "OV", struct.pack("<Q", size)),
    }
    file = dicom_file(picture(), syntax, PixelData=data, elements=tables)
    expected = read(dicom_file(picture(), syntax, PixelData=data)).pixels
    assert np.array_equal(read(file).pixels, expected)


def test_the_size_of_jpeg_2000_is_that_of_the_codestream_which_is_decoded():
    """A box ahead of the codestream holds the header of another of the announced size."""
    large = encode(np.zeros((600, 800), np.uint8), "JPEG2000")
    small = encode(picture(), "JPEG2000", no_jp2=True)
    at = large.index(b"jp2c") - 4
    fake = struct.pack(">I4s16s", 24 + len(small), b"uuid", bytes(16)) + small
    file = dicom_file(
        picture(),
        uid.JPEG2000Lossless,
        PixelData=encaps.encapsulate([large[:at] + fake + large[at:]]),
    )
    with pytest.raises(RadiographError, match=r"announces .* pixels, which its encoded"):
        read(file)
    inside = dicom_file(
        picture(),
        uid.JPEG2000Lossless,
        PixelData=encaps.encapsulate([encode(picture(), "JPEG2000")]),
    )
    assert np.array_equal(
        read(inside).pixels, read(dicom_file(picture(), uid.JPEG2000Lossless)).pixels
    )


@pytest.mark.parametrize("side", [0, 1])
def test_jpeg_2000_with_an_image_offset_is_refused_by_name(side):
    stream = bytearray(encode(picture(), "JPEG2000", no_jp2=True))
    for at in (8, 16):  # the end of the picture in its grid, and its offset
        (value,) = struct.unpack_from(">I", stream, at + 4 * side)
        struct.pack_into(">I", stream, at + 4 * side, value + 13)
    data = encaps.encapsulate([bytes(stream)])
    with pytest.raises(RadiographError, match=r"^unsupported: .* without an image offset"):
        read(dicom_file(picture(), uid.JPEG2000Lossless, PixelData=data))


def test_encoded_data_of_more_bits_than_announced_are_refused():
    deep = picture().astype(np.uint16) * 16
    for syntax in (uid.JPEG2000Lossless, uid.JPEGLSLossless):
        whole = pydicom.dcmread(io.BytesIO(dicom_file(deep, syntax, BitsStored=12, HighBit=11)))
        file = dicom_file(picture(), syntax, PixelData=whole.PixelData)
        with pytest.raises(RadiographError, match=r"8 bits per sample, .* have 12"):
            read(file)


def test_oblong_pixels_of_the_shared_functional_groups_are_refused():
    measures, group = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [0.1, 0.2]
    group.PixelMeasuresSequence = [measures]
    with pytest.raises(RadiographError, match="expected square pixels, the PixelSpacing"):
        read(dicom_file(picture(), SharedFunctionalGroupsSequence=[group]))


@pytest.mark.parametrize("interpretation", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("names", ["RGB", "YCbCr", "YCbCr by JFIF, which counts more than Adobe"])
def test_the_colour_transform_that_the_stream_names_counts(interpretation, names):
    """A picture in three colours, whose luma Pillow computes from the same colours."""
    colours = np.dstack([picture(), 255 - picture(), picture() // 2])
    expected = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    stream = encode(colours, "JPEG", quality=98, subsampling=0, keep_rgb=names == "RGB")
    if names != "RGB":  # Adobe's segment in the place of JFIF's, or behind it with another answer
        end = 4 + int.from_bytes(stream[4:6], "big")
        begin, transform = (2, 1) if names == "YCbCr" else (end, 0)
        adobe = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0" + bytes([transform])
        stream = stream[:begin] + adobe + stream[end:]
    file = dicom_file(
        colours,
        uid.JPEGBaseline8Bit,
        PhotometricInterpretation=interpretation,
        PixelData=encaps.encapsulate([stream]),
    )
    assert np.abs(read(file).pixels.astype(int) - expected).max() <= 2


def test_a_rust_panic_of_a_plug_in_is_a_refusal():
    # Segments that decode to more bytes than the frame has: the RLE plug-in panics.
    whole = bytearray(good_dicom_files()["rle.dcm"])
    reasons = set()
    start = whole.index(b"\xfe\xff\x00\xe0", whole.index(b"\xe0\x7f\x10\x00") + 20) + 8
    for offset in range(start, start + 80):
        changed = bytes(whole[:offset]) + b"\x7f" + bytes(whole[offset + 1 :])
        try:
            read(changed)
        except RadiographError as error:
            reasons.add(error.reason)
    assert reasons == {"bad_dicom"}


def test_a_picture_of_another_uid_is_not_taken_for_its_syntax():
    with pytest.raises(
        RadiographError, match=r"no decoder for the DICOM transfer syntax \(unknown\)"
    ):
        read(
            dicom_file(picture()).replace(
                uid.ExplicitVRLittleEndian.encode(), b"Planted Patient 01\0"[:19]
            )
        )
