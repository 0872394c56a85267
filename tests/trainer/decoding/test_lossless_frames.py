"""Lossless JPEG and JPEG-LS in DICOM: damage behind an end marker, and sound data of all kinds."""

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


@pytest.mark.skipif(
    not shutil.which("dcmcjpeg"), reason="dcmcjpeg of Debian's dcmtk is not installed"
)
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
    original, encoded = tmp_path / "original.dcm", tmp_path / "encoded.dcm"
    depth = {"BitsStored": bits, "HighBit": bits - 1}
    original.write_bytes(dicom_file(pixels, uid.ExplicitVRLittleEndian, **depth))
    subprocess.run(["dcmcjpeg", "+el", "+sv", str(predictor), original, encoded], check=True)
    assert np.array_equal(read(encoded.read_bytes()).pixels, read(original.read_bytes()).pixels)


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
