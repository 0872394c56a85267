"""Turn the bytes of an image file into one grey 8-bit square. Nothing else decodes files.

Preparation and scoring both call `load`, so what a model learned from and what it is asked about
cannot differ.
"""

import dataclasses
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from trainer.decoding import picture
from trainer.decoding.refusal import REASONS, WARNINGS, RadiographError, refuse
from trainer.decoding.size_limits import MAX_PIXELS

if TYPE_CHECKING:
    from trainer.decoding.dicom import DicomImage

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "PREPROCESSING",
    "REASONS",
    "WARNINGS",
    "Placement",
    "Radiograph",
    "RadiographError",
    "frames",
    "letterbox",
    "load",
    "placement",
    "read",
]

MAX_BYTES = 6 * MAX_PIXELS
"""16-bit RGB of the largest picture that is decoded; a larger value is an error."""
PREPROCESSING: dict[str, Any] = {
    "version": 1,
    "steps": [
        "decode the first and only frame; apply the EXIF orientation",
        "transparency over black; colour to grey by ITU-R 601 luma",
        "16-bit grey or colour: divide by the smallest full scale of 8, 10, 12, 14 or 16 bits that "
        "holds the maximum",
        "32-bit and floating-point grey: finite minimum to 0, finite maximum to 255",
        "DICOM: modality LUT, then VOI LUT or window (0.5 to 99.5 percentile where there is none), "
        "then inversion, padding black",
        "letterbox: longer side to the image size, aspect ratio kept, centred, black border",
    ],
    "interpolation": {"shrinking": "area", "enlarging": "linear"},
    "output": {"dtype": "uint8", "channels": 1, "range": [0, 255]},
}

_MAGICS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"%PDF-", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "icon"),
    (b"v/1\1", "OpenEXR"),
    (b"II\xbc\1", "JPEG XR"),
    (b"NRRD000", "NRRD"),
    (b"ObjectType = Image", "MetaImage"),
    (b"\x93NUMPY", "NumPy"),
)
_NIFTI = (b"n+1\0", b"ni1\0")
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = (
    b"heic",
    b"heif",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"mif1",
    b"msf1",
    b"avif",
    b"avis",
)
_SVG_BYTES = 4096
"""How far into a file its first element is looked for."""

_BLANK_RANGE = 2
_BLANK_SHARE = 0.999
_SAMPLE_STEP = 8


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """Holds one decoded picture.

    Attributes:
      pixels: uint8 [height, width], bone bright, orientation applied.
      source_format: PNG, JPEG, TIFF, BMP, WEBP or DICOM.
      source_mode: what the file held: grey, grey16, rgb, palette, cmyk, monochrome1 and so on; see
        `picture.MODES`, `dicom_header.MODES`.
      tags: DICOM only: modality, body_part, view, study_uid where present. The UID identifies a
        study: a caller must replace it by a pseudonym before it writes anything.
      warnings: keys of `WARNINGS`, sorted, none twice; empty for an unremarkable picture.
    """

    pixels: np.ndarray
    source_format: str
    source_mode: str
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Placement:
    """Says where a picture lies in its letterbox square, in pixels of the square."""

    top: int
    left: int
    height: int
    width: int


def placement(height: int, width: int, size: int) -> Placement:
    """Return where a picture of [height, width] lies in a square of side `size`: centred, aspect
    ratio kept, no side under 1.
    """
    if min(height, width, size) < 1:
        raise ValueError(
            f"expected positive sides, got a picture of {height} x {width} and a square of {size}"
        )
    scale = size / max(height, width)
    new_height = min(size, max(1, round(height * scale)))
    new_width = min(size, max(1, round(width * scale)))
    return Placement((size - new_height) // 2, (size - new_width) // 2, new_height, new_width)


def letterbox(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [height, width] to [size, size, 1] without distortion, centred on black."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 [height, width], got {pixels.dtype} {list(pixels.shape)}")
    place = placement(pixels.shape[0], pixels.shape[1], size)
    interpolation = cv2.INTER_AREA if max(pixels.shape) > size else cv2.INTER_LINEAR
    square = np.zeros((size, size, 1), np.uint8)
    square[place.top : place.top + place.height, place.left : place.left + place.width, 0] = (
        cv2.resize(pixels, (place.width, place.height), interpolation=interpolation)
    )
    return square


def load(data: bytes, size: int) -> np.ndarray:
    """Turn the bytes of a file into uint8 [size, size, 1]; raise `RadiographError`."""
    return letterbox(read(data).pixels, size)


def read(data: bytes) -> Radiograph:
    """Decode a PNG, JPEG, TIFF, BMP, WebP or DICOM file; raise only `RadiographError`."""
    if not data:
        refuse("empty", "expected an image file, got no bytes")
    kind = recognise(data)
    if kind == "DICOM":
        # Imported here: pydicom takes seconds to import, and most files are not DICOM.
        from trainer.decoding import dicom

        return _radiograph_of_dicom(dicom.read(data))
    if kind not in picture.FORMATS:
        found = kind or "that of no known image format"
        refuse(
            "unsupported" if kind else "not_an_image",
            f"expected PNG, JPEG, TIFF, BMP, WebP or DICOM, the content is {found}",
        )
    pixels, mode, notes = picture.read(data, kind)
    return _radiograph(pixels, kind, mode, {}, notes)


def frames(data: bytes) -> tuple[int, Callable[[int], Radiograph]]:
    """Return the number of frames of a file (1 unless it is DICOM), and the function that decodes
    one of them, in any order.

    It and this raise `RadiographError` and nothing else. Not for threads: the frames share what was
    parsed.
    """
    if not data or recognise(data) != "DICOM":
        return 1, lambda _: read(data)
    from trainer.decoding import dicom

    number, frame = dicom.frames(data)
    return number, lambda index: _radiograph_of_dicom(frame(index))


def _radiograph_of_dicom(decoded: "DicomImage") -> Radiograph:
    return _radiograph(decoded.pixels, "DICOM", decoded.mode, decoded.tags, decoded.warnings)


def _radiograph(
    pixels: np.ndarray,
    source_format: str,
    source_mode: str,
    tags: Mapping[str, str],
    warnings: Set[str],
) -> Radiograph:
    found = warnings | ({"blank"} if is_blank(pixels) else set())
    return Radiograph(pixels, source_format, source_mode, tags, tuple(sorted(found)))


def is_blank(pixels: np.ndarray) -> bool:
    """Return whether uint8 pixels show nothing.

    A picture is blank if its grey levels lie within `_BLANK_RANGE` of each other, or if at least
    `_BLANK_SHARE` of its pixels have the same level.
    """
    others = pixels.size - _BLANK_SHARE * pixels.size
    # If a sample alone has more other pixels than the whole may have, the rest needn't be counted.
    sample = pixels[::_SAMPLE_STEP, ::_SAMPLE_STEP]
    return _has_one_level(sample, others) and _has_one_level(pixels, others)


def _has_one_level(pixels: np.ndarray, others: float) -> bool:
    """Return whether all but `others` uint8 pixels have the same level, or all nearly the same."""
    # OpenCV counts without widening the pixels to 8 bytes each, as NumPy does.
    counts = cv2.calcHist([pixels], [0], None, [256], [0, 256])[:, 0]
    levels = np.flatnonzero(counts)
    return bool(levels[-1] - levels[0] <= _BLANK_RANGE or pixels.size - counts.max() <= others)


def recognise(data: bytes) -> str:
    """Name the format that the first bytes announce; an empty string where they announce none.
    Takes linear time."""
    if _is_dicom(data):  # first: a DICOM preamble may be a TIFF header (PS3.10 7.1)
        return "DICOM"
    for magic, name in _MAGICS:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF or AVIF"
    if data[344:348] in _NIFTI:
        return "NIfTI"
    if _is_svg(data[:_SVG_BYTES]):
        return "SVG"
    if data[:1] == b"P" and data[1:2] in b"123456" and _is_netpbm_header(data[2:_SVG_BYTES]):
        return "Netpbm"
    return ""


def _is_dicom(data: bytes) -> bool:
    """Tell whether this is a DICOM file, or a little-endian data set without preamble (PS3.5
    7.1)."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8 or data[:2] not in (b"\x02\x00", b"\x08\x00") or data[3] != 0:
        return False
    return (data[4:6].isalpha() and data[4:6].isupper()) or data[6:8] == b"\0\0"


def _is_svg(head: bytes) -> bool:
    """Tell whether the first element is `svg`, behind an XML declaration, comments and a document
    type."""
    rest = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if rest.startswith(b"<?xml"):
        rest = rest.partition(b">")[2].lstrip()
    position = 0  # moved on rather than cut off, which would copy the rest for each comment
    while rest.startswith(b"<!--", position):
        end = rest.find(b"-->", position + 4)
        if end < 0:
            return False
        position = _skip_space(rest, end + 3)
    if rest.startswith(b"<!DOCTYPE svg", position):
        end = rest.find(b">", position)
        if end < 0:
            return False
        position = _skip_space(rest, end + 1)
    name = rest[position : position + 5]
    return name[:4] == b"<svg" and (name[4:] == b">" or name[4:].isspace())


def _skip_space(text: bytes, position: int) -> int:
    """Return where the white space at `position` ends."""
    while text[position : position + 1].isspace():
        position += 1
    return position


def _is_netpbm_header(rest: bytes) -> bool:
    """Tell whether white space, and then a number or a comment, follow the magic number."""
    after = rest.lstrip()
    return len(after) < len(rest) and (after[:1].isdigit() or after[:1] == b"#")
