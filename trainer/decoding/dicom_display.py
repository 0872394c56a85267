"""Stored DICOM values -> the grey that a viewer would show.

Order of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, presentation LUT shape. All of it works on a table of the values
that 8 or 16 bits can hold, and the picture is looked up in that table.
"""

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut

from trainer.decoding.refusal import refuse

_PERCENTILES = (0.5, 99.5)
_ROWS_PER_BLOCK = 256
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def of_frame(dataset: pydicom.Dataset, index: int) -> pydicom.Dataset:
    """The data set as it holds for one frame: windows and rescales of its functional groups (PS3.3 C.7.6.16) take precedence."""
    shared, each = (
        dataset.get(f"{name}FunctionalGroupsSequence") or [] for name in ("Shared", "PerFrame")
    )
    groups = [*shared[:1], *each[index : index + 1]]
    items = [group[name][0] for group in groups for name in _FRAME_GROUPS if group.get(name)]
    if not items:
        return dataset
    merged = pydicom.Dataset()
    for item in (dataset, *items):
        merged.update(item)
    return merged


def luma(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Luma plane [h, w] or RGB [h, w, 3] of any depth -> uint8 [h, w]."""
    plane = np.empty(pixels.shape[:2], np.uint8)
    for top in range(0, len(pixels), _ROWS_PER_BLOCK):
        block = (pixels[top : top + _ROWS_PER_BLOCK] >> max(0, bits - 8)).astype(np.uint8)
        plane[top : top + _ROWS_PER_BLOCK] = np.asarray(Image.fromarray(block).convert("L"))
    return plane


def grey(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values [h, w] -> uint8 [h, w], by one table for every value that 8 or 16 bits can hold."""
    codes = stored.view(f"u{stored.itemsize}")
    blocks = [codes[top : top + _ROWS_PER_BLOCK] for top in range(0, len(codes), _ROWS_PER_BLOCK)]
    values = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype).view(stored.dtype)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        table = _palette(dataset, values)
    else:
        counts = np.sum(
            [np.bincount(block.ravel(), minlength=len(values)) for block in blocks], axis=0
        )
        table = _display_table(dataset, values, counts)
    result = np.empty(codes.shape, np.uint8)
    for index, block in enumerate(blocks):  # NumPy widens an index array to 8 bytes per pixel
        result[index * _ROWS_PER_BLOCK : (index + 1) * _ROWS_PER_BLOCK] = table[block]
    return result


def _palette(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    colours = apply_color_lut(values[None], dataset)
    return luma(colours[..., :3], 8 * colours.itemsize)[0]


def _display_table(dataset: pydicom.Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Stored values [n], and how often each occurs [n] -> the grey uint8 [n] of each, bone bright, padding black."""
    padding = _is_padding(dataset, values)
    unit = _voi(
        dataset, _modality(dataset, values.astype(np.float64)), np.where(padding, 0, counts)
    )
    # DX files say both for one inversion (PS3.3 C.8.11.3.1.2).
    if (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    ):
        unit = 1 - unit
    return np.where(padding, 0, np.rint(unit * 255)).astype(np.uint8)


def _is_padding(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Which stored values stand for "no picture here" (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    # The sign of either depends on a VR that writers get wrong; the bits are right.
    low, high = sorted(
        np.array([first, first if last is None else last], np.int64).astype(values.dtype)
    )
    return (values >= low) & (values <= high)


def _modality(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Stored values -> modality values, float64, by the modality LUT or the rescale (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        entries, first, _ = _lut(dataset.ModalityLUTSequence[0])
        return entries[np.clip(values - first, 0, len(entries) - 1).astype(np.intp)]
    slope, intercept = (
        _first_number(dataset, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        refuse(
            "bad_dicom",
            "expected a rescale slope that leaves a picture, that of the DICOM data set is 0",
        )
    return values * (1.0 if slope is None else slope) + (0.0 if intercept is None else intercept)


def _voi(dataset: pydicom.Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Modality values [n] -> 0..1 [n], by the VOI LUT, else the first window, else the percentiles of the picture."""
    if dataset.get("VOILUTSequence"):
        entries, first, bits = _lut(dataset.VOILUTSequence[0])
        index = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.intp)
        return np.clip(entries[index] / ((1 << bits) - 1), 0, 1)
    try:
        centre, width = (
            _first_number(dataset, keyword) for keyword in ("WindowCenter", "WindowWidth")
        )
    except ValueError:  # a word, or a decimal comma
        centre = width = None
    if centre is not None and width is not None and width > 0:
        return window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    order = np.argsort(values, kind="stable")
    percent = np.cumsum(counts[order]) * (100 / max(1, counts.sum()))
    low, high = values[order[np.minimum(np.searchsorted(percent, _PERCENTILES), len(order) - 1)]]
    return window(
        values, (low + high) / 2, max(high - low, np.finfo(np.float32).tiny), "LINEAR_EXACT"
    )


def window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3): modality values -> float64 in 0..1, of the same shape."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _lut(item: pydicom.Dataset) -> tuple[np.ndarray, int, int]:
    """A LUT sequence item -> (entries float64 [n], the value that the first entry stands for, bits of an entry)."""
    length, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = item.LUTData
    if isinstance(entries, bytes):
        little = (
            item["LUTData"].is_little_endian
            if hasattr(item["LUTData"], "is_little_endian")
            else True
        )
        entries = np.frombuffer(entries, "<u2" if little else ">u2")
    entries = np.atleast_1d(np.asarray(entries, np.float64))[: length or 1 << 16]
    if not 1 <= bits <= 16 or not entries.size:
        refuse(
            "bad_dicom",
            "expected a LUT of up to 16 bits with entries, the DICOM data set has another",
        )
    return entries, first, bits


def _first_number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first finite number of an attribute with one or several values; None where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    if value is None or value == "" or not np.isfinite(float(value)):
        return None
    return float(value)
