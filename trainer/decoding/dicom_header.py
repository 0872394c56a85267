"""Read and check the header of a DICOM file before any pixel is decoded."""

import io

import pydicom
from pydicom import encaps, uid
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_expected_length

from trainer.decoding.dicom_values import has_value, read_integer, read_numbers
from trainer.decoding.refusal import refuse
from trainer.decoding.size_limits import check_memory, check_size

MODES = {
    "MONOCHROME1": "monochrome1",
    "MONOCHROME2": "monochrome2",
    "PALETTE COLOR": "palette",
    "RGB": "rgb",
    **dict.fromkeys(("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"), "ycbcr"),
}
LOSSLESS_JPEG = (uid.JPEGLossless, uid.JPEGLosslessSV1)
_SIDES = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SQUARE = 0.01
"""How far the sides of a pixel may differ, as a share of the longer one."""
_FIRST_ITEM = b"\xfe\xff\x00\xe0"


def read_header(dataset: pydicom.Dataset, notes: set[str]) -> tuple[int, str]:
    """Read what a picture is from its header; refuse what is not one of 1, 8 or 16 bits.

    Elements that decoders read again are put into the form that they expect.

    Returns:
      The number of frames, and a value of `MODES`. Codes of `refusal.WARNINGS` are added to
      `notes`.
    """
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        refuse("unsupported", "expected integer pixels, those of the DICOM file are floating-point")
    if not dataset.get("PixelData"):
        refuse("bad_dicom", "expected pixel data, the DICOM data set has none")
    interpretation = str(dataset.get("PhotometricInterpretation")).strip().upper()
    mode = MODES.get(interpretation)
    if mode is None:
        refuse(
            "bad_dicom",
            f"expected a photometric interpretation of {', '.join(MODES)}, "
            "the DICOM data set has none of them",
        )
    dataset.PhotometricInterpretation = interpretation
    rows, columns, allocated, stored, samples = (
        _read_positive(dataset, keyword)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel")
    )
    if samples != (3 if mode in ("rgb", "ycbcr") else 1):
        refuse(
            "bad_dicom",
            f"the DICOM data set announces {samples} samples per pixel, which contradicts {mode}",
        )
    if stored > allocated:
        refuse(
            "bad_dicom",
            f"the DICOM data set announces {stored} bits stored in {allocated} allocated",
        )
    if allocated not in (1, 8, 16):
        refuse(
            "unsupported",
            f"expected 1, 8 or 16 bits per sample, the DICOM pixels have {allocated}",
        )
    check_size(rows, columns)
    if read_integer(dataset, "PixelRepresentation") not in (0, 1):
        refuse("bad_dicom", "expected a PixelRepresentation of 0 or 1, the DICOM data set has none")
    _check_square(dataset, notes)
    frames = _read_number_of_frames(dataset, notes)
    syntax = read_transfer_syntax(dataset)
    encapsulated = syntax.is_encapsulated
    # A frame takes a fragment at least.
    if frames < 1 or (encapsulated and 1 < frames > encaps.parse_fragments(dataset.PixelData)[0]):
        refuse(
            "bad_dicom",
            f"the DICOM data set announces {frames} frames, which its pixel data contradict",
        )
    if not encapsulated:
        _check_length(dataset)
    elif frames == 1:
        _join_fragments(dataset)
    # PixelData, the array that pydicom makes of it, the result. A decoder of compressed data has
    # planes of 32 bits as well. Some kinds of JPEG are decoded twice: another stream and array.
    sample = max(8, allocated) // 8
    encoded = 4 if encapsulated else 0
    arrays = 4 if syntax in (*LOSSLESS_JPEG, uid.JPEGExtended12Bit) else 2
    check_memory(rows * columns * (samples * (arrays * sample + encoded) + 1))
    return frames, mode


def _read_positive(dataset: pydicom.Dataset, keyword: str) -> int:
    value = read_integer(dataset, keyword)
    if value is None or value < 1:
        refuse("bad_dicom", f"expected a positive {keyword}, the DICOM data set has none")
    return value


def _read_number_of_frames(dataset: pydicom.Dataset, notes: set[str]) -> int:
    """Return the number of frames, 1 where it is missing, malformed or 0."""
    frames = read_integer(dataset, "NumberOfFrames")
    if frames is None or frames == 0:
        if has_value(dataset, "NumberOfFrames"):
            notes.add("ignored_element")
        frames = 1
    # The decoders read it again, less leniently.
    dataset.NumberOfFrames = frames
    return frames


def _join_fragments(dataset: pydicom.Dataset) -> None:
    """Join the fragments of a single frame whose table of offsets says anything unusual.

    All fragments belong to that frame (PS3.5 A.4), so that a table that doesn't fit does no harm.
    """
    data = dataset.PixelData
    table = data[8 : 8 + int.from_bytes(data[4:8], "little")]
    if data[:4] != _FIRST_ITEM or table in (b"", bytes(4)):
        return
    fragments = io.BytesIO(data)
    fragments.seek(8 + len(table))
    dataset.PixelData = encaps.encapsulate([b"".join(encaps.generate_fragments(fragments))])


def _check_length(dataset: pydicom.Dataset) -> None:
    """Refuse pixel data that are shorter than the header says, or compressed unannounced."""
    expected, found = get_expected_length(dataset), len(dataset.PixelData)
    if found >= expected:
        return
    if dataset.PixelData[:8].startswith((b"\xff\xd8\xff", _FIRST_ITEM)):
        refuse(
            "bad_dicom",
            "the pixel data of the DICOM file are compressed, its transfer syntax says not",
        )
    refuse("truncated", f"expected {expected:,} bytes of DICOM pixel data, found {found:,}")


def _check_square(dataset: pydicom.Dataset, notes: set[str]) -> None:
    """Refuse oblong pixels, which would make a distorted picture; ignore malformed sides."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    measures = [item for group in shared[:1] for item in group.get("PixelMeasuresSequence") or []]
    for item in (dataset, *measures[:1]):
        for keyword in _SIDES:
            given = read_numbers(item, keyword)
            sides = [side for side in given if side is not None and side > 0]
            if len(sides) != 2 or len(given) != 2:
                if has_value(item, keyword):
                    notes.add("ignored_element")
            elif max(sides) - min(sides) > _SQUARE * max(sides):
                refuse(
                    "unsupported",
                    f"expected square pixels, the {keyword} of the DICOM file says that they are"
                    " not",
                )


def read_transfer_syntax(dataset: pydicom.Dataset) -> uid.UID:
    """Return the transfer syntax, or what pydicom guessed; refuse one that cannot be decoded."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        implicit, little = dataset.original_encoding
        syntax = (
            uid.ImplicitVRLittleEndian
            if implicit
            else uid.ExplicitVRLittleEndian
            if little
            else uid.ExplicitVRBigEndian
        )
        dataset.file_meta.TransferSyntaxUID = syntax
    try:
        if get_decoder(syntax).is_available:
            return syntax
    except NotImplementedError:
        pass
    # A UID that the standard does not name might be any other of the file's.
    name = syntax.name if syntax.name != str(syntax) else "(unknown)"
    refuse("unsupported", f"no decoder for the DICOM transfer syntax {name}")
