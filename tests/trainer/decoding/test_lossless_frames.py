"""Lossless and 12-bit JPEG in DICOM: damage ahead of an end marker, sound data, unused bits."""

import io
import pathlib
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom import encaps, uid
from pydicom.data import get_testdata_file

from tests.support.dicom_files import dicom_file
from trainer.radiograph import RadiographError, frames, read

needs_dcmtk = pytest.mark.skipif(
    not shutil.which("dcmcjpeg"), reason="dcmcjpeg of Debian's dcmtk is not installed"
)
END = b"\xff\xd9"
FILES = {
    "lossless JPEG, 16 bits": "JPEG-LL.dcm",
    "lossless JPEG, 8 bits": "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "near-lossless JPEG-LS": "JPEGLSNearLossless_16.dcm",
}
DAMAGE = {
    "half": lambda data: data[: len(data) // 2] + END,
    "nine tenths": lambda data: data[: len(data) * 9 // 10] + END,
    "zeros in its second half": lambda data: (
        data[: len(data) // 2] + bytes(len(data) - len(data) // 2 - 2) + END
    ),
    "zeros in its middle": lambda data: (
        data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * (len(data) // 3) :]
    ),
    "without its middle": lambda data: data[: len(data) // 3] + data[2 * (len(data) // 3) :],
    "64 zeros": lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_damaged_data_with_an_end_marker_are_refused(name, damage):
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    frame = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    assert read(_with_frame(dataset, frame)).pixels.std() > 5
    with pytest.raises(RadiographError, match=r"^(truncated|bad_dicom): .* JPEG"):
        read(_with_frame(dataset, damage(frame)))


def _with_frame(dataset: pydicom.Dataset, frame: bytes) -> bytes:
    dataset.PixelData = encaps.encapsulate([frame])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@needs_dcmtk
@pytest.mark.parametrize("edge", ["as it is", "black", "white"])
@pytest.mark.parametrize("noise", [0, 25])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("predictor", [1, 4, 7])
def test_sound_data_of_another_encoder_are_read(
    predictor, bits, noise, edge, tmp_path: pathlib.Path
):
    """Flat areas take one bit a sample, the fewest that there can be."""
    highest = (1 << bits) - 1
    y, x = np.mgrid[:60, :90]
    values = 2000 + 1500 * np.sin(x / 20) * np.cos(y / 30)
    values += np.random.default_rng(0).normal(0, 1, values.shape) * noise
    pixels = (values / 4095 * highest).astype(np.uint8 if bits == 8 else np.uint16)
    if edge != "as it is":
        pixels[30:] = 0 if edge == "black" else highest
    plain = dicom_file(pixels, BitsStored=bits, HighBit=bits - 1)
    encoded = _encode(plain, tmp_path, "+el", "+sv", str(predictor))
    assert np.array_equal(read(encoded).pixels, read(plain).pixels)


@needs_dcmtk
@pytest.mark.parametrize("allocated", [8, 16])
def test_samples_of_8_bits_may_have_more_allocated(allocated, tmp_path):
    values = (np.mgrid[:40, :50].sum(0) * 2).astype(np.uint8)
    window = {"BitsStored": 8, "HighBit": 7, "WindowCenter": 128, "WindowWidth": 256}
    whole = pydicom.dcmread(io.BytesIO(_encode(dicom_file(values, **window), tmp_path, "+e1")))
    file = dicom_file(
        values.astype(f"u{allocated // 8}"),
        uid.JPEGLosslessSV1,
        PixelData=whole.PixelData,
        **window,
    )
    assert np.array_equal(read(file).pixels, values)


@needs_dcmtk
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("highest", [11, 13, 15])
@pytest.mark.parametrize("program", ["+e1", "+el"])
def test_unused_bits_of_lossless_jpeg_are_not_seen(program, highest, is_signed, tmp_path):
    random = np.random.default_rng(highest)
    values = random.integers(0, 4096, (16, 16)) - (2048 if is_signed else 0)
    unused = random.integers(0, 1 << 16, values.shape) & ~(0xFFF << (highest - 11))
    cells = ((values & 0xFFF) << (highest - 11) | unused).astype(np.uint16)
    plain = dicom_file(
        cells,
        PixelRepresentation=int(is_signed),
        BitsStored=12,
        HighBit=highest,
        WindowCenter=0 if is_signed else 2048,
        WindowWidth=4096,
    )
    assert np.array_equal(read(_encode(plain, tmp_path, program)).pixels, read(plain).pixels)


@needs_dcmtk
@pytest.mark.parametrize("content", ["noise", "smooth", "half black", "black but for a line"])
@pytest.mark.parametrize("quality", [30, 90, 100])
def test_sound_jpeg_of_12_bits_is_read_and_damaged_is_refused(content, quality, tmp_path):
    y, x = np.mgrid[:96, :132]
    values = 2000 + 1500 * np.sin(x / 20) * np.cos(y / 30)
    if content == "noise":
        values = np.random.default_rng(0).integers(0, 4096, x.shape)
    if content == "half black":
        values[48:] = 0
    if content == "black but for a line":
        values[8:] = 0
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = dicom_file(values.astype(np.uint16), BitsStored=12, HighBit=11, **window)
    sound = _encode(plain, tmp_path, "+ee", "+q", str(quality))
    wrong = np.abs(read(sound).pixels.astype(int) - read(plain).pixels).mean()
    assert wrong < (60 if content == "noise" and quality == 30 else 8)
    dataset = pydicom.dcmread(io.BytesIO(sound))
    filled = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")[:-2]
    # Zeros are also the code of many black blocks.
    for fill in (b"\xff" * 20, *([] if "black" in content else [bytes(20)])):
        file = _with_frame(pydicom.dcmread(io.BytesIO(sound)), filled + fill + END)
        assert np.array_equal(read(file).pixels, read(sound).pixels)
    frame = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    start = frame.index(b"\xff\xda") + 10
    for share in (0.2, 0.5, 0.7):
        kept = start + int((len(frame) - start) * share)
        damaged = [frame[:kept] + END]
        if content == "noise":  # In other pictures, zeros may stand for as many flat blocks.
            damaged.append(frame[:kept] + bytes(len(frame) - kept - 2) + END)
        for data in damaged:
            with pytest.raises(RadiographError, match=r"^truncated: the JPEG data .* damaged"):
                read(_with_frame(dataset, data))


def _encode(file: bytes, folder: pathlib.Path, *options: str) -> bytes:
    """Return a DICOM file that dcmcjpeg has encoded."""
    original, encoded = folder / "original.dcm", folder / "encoded.dcm"
    original.write_bytes(file)
    subprocess.run(["dcmcjpeg", *options, original, encoded], check=True)
    return encoded.read_bytes()


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"])
def test_the_frames_of_a_file_do_not_change_each_other(name):
    """Each frame is decoded a second time with other bytes, which must stay without effect."""
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    one = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    expected = read(_with_frame(dataset, one)).pixels
    dataset.NumberOfFrames = 3
    dataset.PixelData = encaps.encapsulate([one, one, one])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    number, frame = frames(buffer.getvalue())
    assert number == 3
    for index in (0, 1, 2, 0):
        assert np.array_equal(frame(index).pixels, expected)
