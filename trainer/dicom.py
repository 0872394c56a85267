"""Bytes of a DICOM file -> grey pixels, as a viewer would show them.

Order of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, presentation LUT shape. Identifiers that somebody burned into
the pixels stay there: no program can remove them with certainty.
"""

import contextlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, get_decoder

from trainer.refusal import RadiographError, check_size, refuse

_PERCENTILES = (0.5, 99.5)
_ROWS_PER_BLOCK = 256
_TAGS = {
    "modality": ("Modality", r"[A-Z0-9_ ]{1,16}"),
    "body_part": ("BodyPartExamined", r"[A-Z0-9_ ]{1,16}"),
    "view": ("ViewPosition", r"[A-Z0-9_ ]{1,16}"),
    "study_uid": ("StudyInstanceUID", r"[0-9.]{1,64}"),
}
_QUIET = threading.Lock()


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or a data set without the preamble."""
    if data[128:132] == b"DICM":
        return True
    group_and_element = data[:2] in (b"\x02\x00", b"\x08\x00") and len(data) >= 8 and data[3] == 0
    return group_and_element and (re.fullmatch(rb"[A-Z]{2}", data[4:6]) is not None or data[6:8] == b"\0\0")


def read(data: bytes) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns uint8 [height, width] with bone bright, the photometric interpretation, and the harmless tags.

    Raises RadiographError with bad_dicom, truncated, unsupported or too_large.
    """
    with _quiet_pydicom():
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            stored = _stored_values(dataset)
            return _grey(dataset, stored), str(dataset.PhotometricInterpretation), _tags(dataset)
        except (RadiographError, MemoryError):
            raise
        except Exception as error:
            # The message of the cause may quote values of the patient: only its type is told.
            raise RadiographError("bad_dicom", f"the DICOM data cannot be read ({type(error).__name__})") from None


def look_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`table[values]` by blocks of rows: NumPy widens an index array to 8 bytes per pixel."""
    result = np.empty(values.shape, table.dtype)
    for top in range(0, len(values), _ROWS_PER_BLOCK):
        result[top : top + _ROWS_PER_BLOCK] = table[values[top : top + _ROWS_PER_BLOCK]]
    return result


@contextlib.contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Keeps pydicom's warnings and log lines, which may quote patient values, out of the logs while a file is read."""
    logger = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = disabled


def _tags(dataset: pydicom.Dataset) -> dict[str, str]:
    texts = {name: str(dataset.get(keyword) or "").strip() for name, (keyword, _) in _TAGS.items()}
    return {name: text for name, text in texts.items() if re.fullmatch(_TAGS[name][1], text)}


def _stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    """The stored values: [h, w], or [h, w, 3] in RGB."""
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        refuse("bad_dicom", "expected pixel data, the DICOM data set has none")
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        refuse("bad_dicom", "expected positive Rows and Columns, the DICOM data set has none")
    check_size(rows, columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        refuse("unsupported", f"expected one picture, the DICOM file holds {frames} frames")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        syntax = dataset.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if dataset.original_encoding[0] else pydicom.uid.ExplicitVRLittleEndian
        )
    try:
        decoder = get_decoder(syntax)
        missing = not decoder.is_available
    except NotImplementedError:
        missing = True
    if missing:
        refuse("unsupported", f"no decoder for the DICOM transfer syntax {syntax.name}")
    pixels, _ = decoder.as_array(dataset, index=0)
    return pixels


def _grey(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values -> uint8 [h, w] by one table, which covers every value that 8 or 16 bits can hold."""
    if stored.ndim == 3:
        return np.asarray(Image.fromarray(stored.astype(np.uint8)).convert("L"))
    if stored.dtype.itemsize > 2:
        refuse("unsupported", f"expected 8 to 16 bits per pixel, the DICOM pixels are {stored.dtype}")
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    codes = np.arange(1 << 8 * stored.dtype.itemsize, dtype=unsigned.dtype)
    values = codes.view(stored.dtype)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(values[None], dataset)
        table = np.asarray(Image.fromarray((colours >> 8 * (colours.itemsize - 1)).astype(np.uint8)).convert("L"))[0]
    else:
        counts = sum(
            np.bincount(block.ravel(), minlength=len(codes)) for block in np.array_split(unsigned, len(unsigned) // 256 + 1)
        )
        padding = _padding(dataset, values)
        unit = _display(dataset, values, np.where(padding, 0, counts))
        if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
            unit = 1 - unit
        table = np.where(padding, 0, np.rint(unit * 255)).astype(np.uint8)
    return look_up(table, unsigned)


def _padding(dataset: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Which stored values stand for "no picture here" (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    last = first if last is None else last
    return (values >= min(first, last)) & (values <= max(first, last))


def _display(dataset: pydicom.Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Stored values [n] -> display values [n] in 0..1, before inversion; `counts` [n] is how often each occurs."""
    modality = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(modality, dataset) / ((1 << bits) - 1)
    modality = modality.astype(np.float64)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        centre, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
        return window(modality, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    order = np.argsort(modality, kind="stable")
    share = np.cumsum(counts[order]) * (100 / max(1, counts.sum()))
    low, high = (modality[order][min(np.searchsorted(share, percentile), len(order) - 1)] for percentile in _PERCENTILES)
    return window(modality, (low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


def window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Applies a VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3): values of any range -> float64 in 0..1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)  # type: ignore[arg-type, index]
