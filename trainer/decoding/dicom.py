"""Decode DICOM files to grey pixels, as a viewer would show them.

Identifiers that somebody burned into the pixels stay there: no program can remove them with
certainty. Of the data set, only modality, body part, view and the UID of the study leave this
module. The UID identifies a study: a caller must replace it by a pseudonym before it writes
anything. No exception, warning or log line of a library is passed on, because they quote values.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom import encaps, uid
from pydicom.datadict import tag_for_keyword
from pydicom.pixels import get_decoder

from trainer.decoding.dicom_containment import contain_errors
from trainer.decoding.dicom_display import grey, luma, merge_frame_attributes
from trainer.decoding.dicom_header import (
    LOSSLESS_JPEG,
    read_header,
    read_transfer_syntax,
)
from trainer.decoding.dicom_terms import BODY_PARTS, MODALITIES, RADIOGRAPHY, VIEWS
from trainer.decoding.encoded_frame import check_end, has_end, read_bit_depth
from trainer.decoding.jpeg_segments import read_adobe_transform
from trainer.decoding.refusal import refuse
from trainer.decoding.sample_count import check_sample_count
from trainer.decoding.size_limits import check_memory

_TERMS = {
    "modality": ("Modality", MODALITIES),
    "body_part": ("BodyPartExamined", BODY_PARTS),
    "view": ("ViewPosition", VIEWS),
}
_UID = re.compile(r"[0-9.]{1,64}")
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_LOSSY_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_FRAMES = {
    tag_for_keyword(keyword)
    for keyword in (
        "NumberOfFrames",
        "PixelData",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
    )
}
_PIXEL_DATA_TAG = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


class DicomImage(NamedTuple):
    """Holds one decoded frame.

    Attributes:
      pixels: uint8 [height, width], bone bright.
      mode: a value of `dicom_header.MODES`.
      tags: `modality`, `body_part`, `view` and `study_uid`, those that are known.
      warnings: keys of `refusal.WARNINGS`.
    """

    pixels: np.ndarray
    mode: str
    tags: dict[str, str]
    warnings: frozenset[str]


def read(data: bytes) -> DicomImage:
    """Decode a file with one frame.

    Raises:
      RadiographError: bad_dicom, truncated, unsupported or too_large.
    """
    number, frame = frames(data)
    if number > 1:
        refuse("unsupported", f"expected one picture, the DICOM file holds {number} frames")
    return frame(0)


def frames(data: bytes) -> tuple[int, Callable[[int], DicomImage]]:
    """Return the number of frames, and the function that decodes one of them.

    Both raise as `read` does.
    """
    with contain_errors():
        _check_deflated(data)
        dataset = _parse(data)
        notes: set[str] = set()
        number, mode = read_header(dataset, notes)

    def frame(index: int) -> DicomImage:
        with contain_errors():
            found = set(notes)
            stored, done = _stored_values(dataset, index, found)
            pixels = stored if done else grey(merge_frame_attributes(dataset, index), stored, found)
            tags = _tags(dataset)
            if tags.get("modality", "OT") not in RADIOGRAPHY:
                found.add("other_modality")
            return DicomImage(pixels, mode, tags, frozenset(found))

    return number, frame


def _parse(data: bytes) -> pydicom.Dataset:
    """Read the data set; refuse one that stops in the middle of an element."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    except (EOFError, struct.error):
        refuse("truncated", "the DICOM file ends inside an element")
    if "PixelData" in dataset:
        return dataset
    name = _class_without_pixels(dataset)
    if name:
        refuse("bad_dicom", f"the DICOM file is not a picture but of the class {name}")
    if any(tag in data for tag in _PIXEL_DATA_TAG):
        refuse("truncated", "the DICOM file ends inside its pixel data")
    return dataset


def _class_without_pixels(dataset: pydicom.Dataset) -> str:
    """Return the name of the file's SOP class if it is known and not that of an image."""
    for owner, keyword in (
        (dataset, "SOPClassUID"),
        (dataset.file_meta, "MediaStorageSOPClassUID"),
    ):
        found = str(owner.get(keyword) or "").strip()
        name = uid.UID_dictionary[found][0] if found in uid.UID_dictionary else ""
        if name and "Image" not in name:
            return name
    return ""


def _check_deflated(data: bytes) -> None:
    """Refuse a deflated data set beyond the memory limit: pydicom inflates without one."""
    if data[128:132] != b"DICM" or uid.DeflatedExplicitVRLittleEndian.encode() not in data[:4096]:
        return
    group, element, _, _, length = struct.unpack_from("<HH2sHI", data, 132)
    if (group, element) != (2, 0):
        refuse(
            "bad_dicom",
            "expected the length of the file meta information, the deflated DICOM file has none",
        )
    inflater, rest, inflated = zlib.decompressobj(-zlib.MAX_WBITS), data[144 + length :], 0
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 1 << 20))
        check_memory(4 * inflated)
        rest = inflater.unconsumed_tail
    if not inflater.eof:
        refuse("truncated", "the deflated DICOM data set ends early")


def _tags(dataset: pydicom.Dataset) -> dict[str, str]:
    """Return the codes that the standard knows, and the UID.

    Anything else in their place may be text about a patient.
    """
    found = {name: str(dataset.get(keyword) or "").strip() for name, (keyword, _) in _TERMS.items()}
    tags = {name: text for name, text in found.items() if text in _TERMS[name][1]}
    study_uid = str(dataset.get("StudyInstanceUID") or "").strip()
    return tags | ({"study_uid": study_uid} if _UID.fullmatch(study_uid) else {})


def _stored_values(
    dataset: pydicom.Dataset, index: int, notes: set[str]
) -> tuple[np.ndarray, bool]:
    """Return the stored values [h, w] of a frame, and False; for a coloured one, its luma and True.

    The luma is uint8 [h, w]. Codes of `refusal.WARNINGS` are added to `notes`.
    """
    syntax = read_transfer_syntax(dataset)
    bits = 0
    if syntax.is_encapsulated:
        number = int(dataset.get("NumberOfFrames") or 1)
        encoded = encaps.get_frame(dataset.PixelData, index, number_of_frames=number)
        if syntax != uid.RLELossless:
            bits = read_bit_depth(encoded, dataset)
            check_end(encoded, notes)
        # The decoder gets the bytes that were checked, and no other table of offsets.
        dataset, index = _take_frame(dataset, encoded), 0
        if syntax in (*_LOSSY_JPEG, *LOSSLESS_JPEG) and bits == 8:
            # Also where the data set announces more: libjpeg returns bytes. New elements, as
            # other frames share the old ones.
            dataset.add_new("BitsStored", "US", min(8, dataset.BitsStored))
            dataset.add_new("BitsAllocated", "US", 8)
    try:
        pixels, properties = _decode(dataset, index)
    except RuntimeError:
        if syntax == uid.JPEGExtended12Bit:
            refuse("unsupported", f"no decoder for the DICOM transfer syntax {syntax.name}")
        if syntax.is_encapsulated and syntax != uid.RLELossless and not has_end(encoded):
            refuse("truncated", f"the {syntax.name} pixel data end early")
        refuse("bad_dicom", f"the {syntax.name} pixel data cannot be decoded")
    if syntax in (*_LOSSY_JPEG, *LOSSLESS_JPEG):
        check_sample_count(
            encoded, pixels, lambda replaced: _decode(_take_frame(dataset, replaced), 0)[0]
        )
    pixels = _used_bits(dataset, pixels, bits or 8 * pixels.itemsize)
    if pixels.ndim == 2:
        return pixels, False
    transform = read_adobe_transform(encoded) if syntax in _LOSSY_JPEG else None
    has_luma = (
        str(properties["photometric_interpretation"]).startswith("YBR")
        if transform is None
        else transform != 0
    )
    if has_luma:
        pixels = pixels[..., 0]
    return luma(pixels, int(properties["bits_stored"])), True


def _take_frame(dataset: pydicom.Dataset, encoded: bytes) -> pydicom.Dataset:
    """Return the data set with this encoded frame alone; a plain copy would share its elements."""
    single = pydicom.Dataset()
    single.update({tag: dataset.get_item(tag) for tag in dataset.keys() - _FRAMES})
    single.file_meta = dataset.file_meta
    single.set_original_encoding(*dataset.original_encoding)
    single.add_new("NumberOfFrames", "IS", 1)
    single.add_new("PixelData", "OB", encaps.encapsulate([encoded]))
    return single


def _decode(dataset: pydicom.Dataset, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the decoded values of a frame, and what describes them.

    Raises RuntimeError for damaged data.
    """
    syntax = read_transfer_syntax(dataset)
    how: dict[str, Any] = {"raw": True, "view_only": True, "correct_unused_bits": False}
    if syntax in _JPEG_LS:  # pydicom would try another plug-in next, which accepts damaged data.
        how["decoding_plugin"] = "pyjpegls"
    return get_decoder(syntax).as_array(dataset, index=index, **how)


def _used_bits(dataset: pydicom.Dataset, pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return values without the unused bits around them, of the same dtype.

    Old writers fill those bits with overlays (PS3.5 8.1.1). Codecs keep these bits, and do not
    extend the sign of a value that is narrower than its cell.

    Args:
      bits: width of a cell: the codec's precision, or that of the dtype for unencoded data.
    """
    allocated, used = 8 * pixels.itemsize, dataset.BitsStored
    if used >= allocated or dataset.BitsAllocated == 1:
        return pixels
    highest = dataset.get("HighBit")
    if not isinstance(highest, int) or not used <= highest + 1 <= allocated:
        highest = used - 1
    above = allocated - max(used, min(highest + 1, bits))
    shifted = np.left_shift(pixels, above)
    return np.right_shift(shifted, allocated - used, out=shifted)
