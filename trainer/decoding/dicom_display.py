"""Convert stored DICOM values to the grey that a viewer would show.

The order is that of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, presentation LUT or its
shape. All of it works on a table of the values that 8 or 16 bits can hold; the picture is looked up
in that table.
"""

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut

from trainer.decoding.dicom_lut import read_lut
from trainer.decoding.dicom_values import has_value, read_integer, read_numbers
from trainer.decoding.refusal import refuse

_PERCENTILES = (0.5, 99.5)
_ROWS_PER_BLOCK = 256
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def merge_frame_attributes(dataset: pydicom.Dataset, index: int) -> pydicom.Dataset:
    """Return the data set as it holds for one frame.

    Windows and rescales of its functional groups take precedence (PS3.3 C.7.6.16).
    """
    shared, each = (
        dataset.get(f"{name}FunctionalGroupsSequence") or [] for name in ("Shared", "PerFrame")
    )
    groups = [*shared[:1], *each[index : index + 1]]
    items = [group[name][0] for group in groups for name in _FRAME_GROUPS if group.get(name)]
    if not items:
        return dataset
    merged = pydicom.Dataset()
    merged.set_original_encoding(*dataset.original_encoding)
    for item in (dataset, *items):
        merged.update(item)
    return merged


def luma(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return the grey uint8 [h, w] of a luma plane [h, w] or RGB [h, w, 3] of any depth."""
    plane = np.empty(pixels.shape[:2], np.uint8)
    for top in range(0, len(pixels), _ROWS_PER_BLOCK):
        block = (pixels[top : top + _ROWS_PER_BLOCK] >> max(0, bits - 8)).astype(np.uint8)
        plane[top : top + _ROWS_PER_BLOCK] = np.asarray(Image.fromarray(block).convert("L"))
    return plane


def grey(dataset: pydicom.Dataset, stored: np.ndarray, notes: set[str]) -> np.ndarray:
    """Return the grey uint8 [h, w] of stored values [h, w].

    It takes one table for every value that 8 or 16 bits can hold. Codes of `refusal.WARNINGS` are
    added to `notes`.
    """
    codes = stored.view(f"u{stored.itemsize}")
    blocks = [codes[top : top + _ROWS_PER_BLOCK] for top in range(0, len(codes), _ROWS_PER_BLOCK)]
    values = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype).view(stored.dtype)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        table = _palette(dataset, values)
    else:
        counts = np.sum(
            [np.bincount(block.ravel(), minlength=len(values)) for block in blocks], axis=0
        )
        table = _display_table(dataset, values, counts, notes)
    result = np.empty(codes.shape, np.uint8)
    for index, block in enumerate(blocks):  # NumPy widens an index array to 8 bytes per pixel
        result[index * _ROWS_PER_BLOCK : (index + 1) * _ROWS_PER_BLOCK] = table[block]
    return result


def _palette(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Return the grey uint8 [n] of stored values [n] by the palette of three colours."""
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        colours = apply_color_lut(values[None], dataset)
        return luma(colours[..., :3], 8 * colours.itemsize)[0]
    little, signed = _is_little_endian(dataset), dataset.PixelRepresentation == 1
    tables = [
        read_lut(dataset, f"{colour}PaletteColorLookupTable", little, signed)
        for colour in ("Red", "Green", "Blue")
    ]
    # One depth for all colours: the brightest tells it.
    bits = max(8, *(table.bits for table in tables))
    colours = np.stack([table.look_up(values) for table in tables], -1).astype(np.uint16)
    return luma(colours[None], bits)[0]


def _is_little_endian(dataset: pydicom.Dataset) -> bool:
    return dataset.original_encoding[1] is not False


def _display_table(
    dataset: pydicom.Dataset, values: np.ndarray, counts: np.ndarray, notes: set[str]
) -> np.ndarray:
    """Return the grey uint8 [n] of stored values [n], bone bright and padding black.

    `counts` [n] is how often each value occurs.
    """
    padding = _is_padding(dataset, values, notes)
    modality = _modality(dataset, values.astype(np.float64))
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation == 1
    possible = (
        (values >= -(1 << bits - 1)) & (values < 1 << bits - 1) if signed else values < 1 << bits
    )
    can_be_negative = bool(modality[possible].min() < 0)
    unit = _voi(dataset, modality, np.where(padding, 0, counts), can_be_negative, notes)
    if dataset.get("PresentationLUTSequence"):
        # Its input is the whole range of the output of the step before (PS3.3 C.11.4).
        item = dataset.PresentationLUTSequence[0]
        lut = read_lut(item, "LUT", _is_little_endian(dataset), signed=False)
        unit = lut.scale(lut.first + unit * (len(lut.entries) - 1))
    # DX files say both for one inversion (PS3.3 C.8.11.3.1.2).
    elif (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or str(dataset.get("PresentationLUTShape")).strip() == "INVERSE"
    ):
        unit = 1 - unit
    return np.where(padding, 0, np.rint(unit * 255)).astype(np.uint8)


def _is_padding(dataset: pydicom.Dataset, values: np.ndarray, notes: set[str]) -> np.ndarray:
    """Return which stored values stand for "no picture here" (PS3.3 C.7.5.1.1.2)."""
    ends = [
        read_integer(dataset, keyword)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    first = ends[0]
    if first is None:
        if has_value(dataset, "PixelPaddingValue"):
            notes.add("ignored_element")
        return np.zeros(values.shape, bool)
    last = first if ends[1] is None else ends[1]
    size = 1 << 8 * values.itemsize
    if min(first, last) < -size // 2 or max(first, last) >= size:  # no value of this size
        return np.zeros(values.shape, bool)
    # The sign of either depends on a VR that writers get wrong; the bits are right.
    low, high = sorted(np.array([first, last], np.int64).astype(values.dtype))
    return (values >= low) & (values <= high)


def _modality(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Return modality values, float64 [n], of stored values by LUT or rescale (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        signed = dataset.PixelRepresentation == 1
        item = dataset.ModalityLUTSequence[0]
        return read_lut(item, "LUT", _is_little_endian(dataset), signed).look_up(values)
    slope, intercept = (
        _rescale(dataset, keyword, usual)
        for keyword, usual in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0:
        refuse("bad_dicom", "the RescaleSlope of the DICOM file is 0, which leaves no picture")
    return values * slope + intercept


def _rescale(dataset: pydicom.Dataset, keyword: str, usual: float) -> float:
    """Return a number of the rescale; `usual` if the file has none."""
    number = next(iter(read_numbers(dataset, keyword)), None)
    if number is None and has_value(dataset, keyword):
        refuse("bad_dicom", f"the {keyword} of the DICOM file is not a number")
    return usual if number is None else number


def _voi(
    dataset: pydicom.Dataset,
    values: np.ndarray,
    counts: np.ndarray,
    can_be_negative: bool,
    notes: set[str],
) -> np.ndarray:
    """Return 0..1 [n] of modality values [n].

    The VOI LUT comes first, then the first window, then the percentiles of the picture.
    """
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        return read_lut(item, "LUT", _is_little_endian(dataset), can_be_negative).scale(values)
    centre, width = (
        next(iter(read_numbers(dataset, keyword)), None)
        for keyword in ("WindowCenter", "WindowWidth")
    )
    function = str(dataset.get("VOILUTFunction") or "").strip().upper() or "LINEAR"
    # A LINEAR window under 1 is not valid (PS3.3 C.11.2.1.2.1); applied, it leaves black and white.
    is_valid = width is not None and (width >= 1 if function == "LINEAR" else width > 0)
    if centre is not None and width is not None and is_valid:
        return window(values, centre, width, function)
    if has_value(dataset, "WindowCenter") or has_value(dataset, "WindowWidth"):
        notes.add("ignored_element")
    order = np.argsort(values, kind="stable")
    percent = np.cumsum(counts[order]) * (100 / max(1, counts.sum()))
    low, high = values[order[np.minimum(np.searchsorted(percent, _PERCENTILES), len(order) - 1)]]
    return window(
        values, (low + high) / 2, max(high - low, np.finfo(np.float32).tiny), "LINEAR_EXACT"
    )


def window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Return modality values through a VOI window, float64 in 0..1, of the same shape.

    PS3.3 C.11.2.1.2 and C.11.2.1.3 have the functions.
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
