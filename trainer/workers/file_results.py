"""What is wanted of a file in a worker, and what becomes of it: its pixels, or why it has none."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import radiograph
from trainer.files import regular_file
from trainer.radiograph import MAX_BYTES

REASONS: dict[str, str] = {
    **radiograph.REASONS,
    "too_slow": "decoding takes more processor time than a file may take",
    "decode_failed": "decoding failed in a way that no other reason names",
}
"""Why a file cannot become pixels, when it is decoded by a worker."""
_ARRAYS = ("square", "picture")
_BYTES = ("png", "header")
_FORMATS_OF_BROWSERS = ("PNG", "JPEG", "BMP", "WEBP")
_DEEP_MODES = ("grey16", "grey32", "float")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Says what to make of each picture.

    Attributes:
      image_size: side of the square.
      picture: whether to return what an overlay is drawn on.
      header: whether to return what DICOM results repeat of a DICOM file.
      png: whether to return the square as PNG.
    """

    image_size: int
    picture: bool = False
    header: bool = False
    png: bool = False


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Holds one picture of a file, or says why there is none.

    Attributes:
      sha256: of the file's bytes, hexadecimal; None where they could not be read.
      square: uint8 [size, size, 1]; None where the file was refused, is known already, has frames
        to be read one by one, or where `png` was asked for.
      picture: uint8 [height, width], no side over `overlay.MAX_SIDE`; None unless it was asked for.
      png: the square as lossless PNG; None unless it was asked for.
      header: of a DICOM file, as of `source_header.extract`, with identifiers; empty where that
        gives none; None unless it was asked for.
      source: `source_format`, `source_mode`, `source_width`, `source_height`.
      tags, warnings: as of `radiograph.Radiograph`.
      frames: number of frames of the file.
      refusal: reason and detail; the reason is a key of `REASONS`, or `unreadable`.
      errno: of the system, where the file could not be opened or read.
    """

    sha256: str | None
    square: np.ndarray | None = None
    picture: np.ndarray | None = None
    png: bytes | None = None
    header: bytes | None = dataclasses.field(default=None, repr=False)
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    frames: int = 1
    refusal: tuple[str, str] | None = None
    errno: int | None = None

    @property
    def is_shown_by_browsers(self) -> bool:
        """Return whether a page can show the file itself.

        It can show no DICOM and no TIFF. Pictures of more than 8 bits it shows at another
        brightness than they are read with.
        """
        is_deep = self.source.get("source_mode") in _DEEP_MODES
        return self.source.get("source_format") in _FORMATS_OF_BROWSERS and not is_deep

    def pack(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return this as a task does: JSON-able fields, and arrays."""
        fields = dict(vars(self))
        arrays = {name: fields.pop(name) for name in _ARRAYS}
        for name in _BYTES:
            content = fields.pop(name)
            arrays[name] = None if content is None else np.frombuffer(content, np.uint8)
        there = {name: array for name, array in arrays.items() if array is not None}
        return {**fields, "arrays": list(there)}, list(there.values())

    @classmethod
    def unpack(cls, fields: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> "Decoded":
        """Return what `pack` has packed."""
        values: dict[str, Any] = dict(fields)
        values |= zip(values.pop("arrays"), arrays, strict=True)
        values |= {name: values[name].tobytes() for name in _BYTES if name in values}
        values["warnings"] = tuple(values["warnings"])
        values["refusal"] = values["refusal"] and tuple(values["refusal"])
        return cls(**values)


def digest(file: str | bytes) -> str | None:
    """Return the SHA-256 of a file by path or bytes, hexadecimal; None where it cannot be read."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        with regular_file.open_file(file, MAX_BYTES) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None
