"""All sample files of pydicom: a picture or a true reason each, and the pixels of dcmtk."""

import collections
import functools
import pathlib
import re
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_files
from pydicom.pixels import apply_rescale

from trainer.radiograph import REASONS, Radiograph, RadiographError, frames

FILES = sorted({path for name in get_testdata_files() if (path := pathlib.Path(name)).is_file()})
"""Those in the installed packages pydicom and pydicom-data."""

COUNTS = {"picture": 140, "bad_dicom": 73, "unsupported": 18, "not_an_image": 11, "truncated": 2}

NOT_READ_BY_DCMTK = """
    693_J2KI.dcm 693_J2KR.dcm GDCMJ2K_TextGBR.dcm J2K_pixelrep_mismatch.dcm JPEG2000.dcm
    MR2_J2KI.dcm MR2_J2KR.dcm MR_small_jp2klossless.dcm RG1_J2KI.dcm RG1_J2KR.dcm RG3_J2KI.dcm
    RG3_J2KR.dcm SC_rgb_gdcm_KY.dcm SC_rgb_jpeg.dcm US1_J2KI.dcm US1_J2KR.dcm
    emri_small_jpeg_2k_lossless.dcm examples_jpeg2k.dcm explicit_VR-UN.dcm
    gdcm-US-ALOKA-16.dcm gdcm-US-ALOKA-16_big.dcm
"""
"""JPEG 2000, for which dcmtk has no decoder, and files that it takes for damaged."""


@functools.cache
def read_first_frame(path: pathlib.Path) -> Radiograph | RadiographError:
    try:
        return frames(path.read_bytes())[1](0)
    except RadiographError as error:
        return error


def window_flags(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """Return the flags of dcmtk for the window rule of this project.

    The VOI table comes first, then the first window, then the 0.5 to 99.5 percentile.
    """
    if not str(dataset.get("PhotometricInterpretation")).startswith("MONOCHROME"):
        return ()
    if dataset.get("VOILUTSequence"):
        return ("+Wl", "1")
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth"):
        return ("+Wi", "1")
    # dcmtk reads the rescale of functional groups but not their window.
    for group in dataset.get("SharedFunctionalGroupsSequence", []):
        if "FrameVOILUTSequence" in group:
            window = group.FrameVOILUTSequence[0]
            return ("+Ww", str(window.WindowCenter), str(window.WindowWidth))
    stored = dataset.pixel_array
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        stored = stored[0]
    values = apply_rescale(stored, dataset).astype(float)
    kept = values[stored != dataset.get("PixelPaddingValue", 1 << 20)]
    low, high = np.percentile(kept, (0.5, 99.5), method="inverted_cdf")
    return ("+Ww", str(low + 0.5 + (high - low) / 2), str(high - low + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_sample_gives_a_picture_or_a_true_reason(path):
    found = read_first_frame(path)
    if isinstance(found, RadiographError):
        assert found.reason in REASONS
        assert not re.search(r"[A-Z]\w*(Error|Exception)", found.detail)
    else:
        assert found.pixels.dtype == np.uint8 and found.pixels.ndim == 2


def test_the_count_of_samples_by_reason():
    found = [read_first_frame(path) for path in FILES]
    reasons = [frame.reason if isinstance(frame, RadiographError) else "picture" for frame in found]
    assert collections.Counter(reasons) == COUNTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_pixels_of_a_sample_are_those_of_dcmtk(path, by_dcmtk):
    found = read_first_frame(path)
    if isinstance(found, RadiographError):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of odd elements
        dataset = pydicom.dcmread(path, force=True)
        rendered = by_dcmtk(path.read_bytes(), *window_flags(dataset))
    if rendered is None:
        assert path.name in NOT_READ_BY_DCMTK.split()
        return
    assert rendered.shape == found.pixels.shape
    assert np.abs(rendered.astype(int) - found.pixels).mean() <= 1
