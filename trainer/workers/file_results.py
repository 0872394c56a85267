"""What becomes of a file in a worker: its pixels, or the reason why it has none."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import radiograph
from trainer.files import regular_file
from trainer.radiograph import MAX_BYTES
from trainer.workers import pool
from trainer.workers.process import TaskCrashError, TaskError, TaskMemoryError, TaskTimeError

REASONS: dict[str, str] = {
    **radiograph.REASONS,
    "too_slow": "decoding takes more processor time than a file may take",
    "decode_failed": "decoding failed in a way that no other reason names",
}
"""Why a file cannot become pixels, when it is decoded by a worker."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Holds one picture of a file, or says why there is none.

    Attributes:
      sha256: of the file's bytes, hexadecimal; None where they could not be read.
      square: uint8 [size, size, 1]; None where the file was refused, is known already or has frames
        to be read one by one.
      picture: uint8 [height, width], no side over `overlay.MAX_SIDE`; None unless it was asked for.
      tags, warnings: as of `radiograph.Radiograph`.
      frames: number of frames of the file.
      header: of a DICOM file, as of `source_header.extract`, with identifiers; empty where that
        gives none; None unless it was asked for.
      refusal: reason and detail; the reason is a key of `REASONS`, or `unreadable`.
      is_shown_by_browsers: whether a page can show the file itself: DICOM and TIFF not at all,
        pictures of more than 8 bits not at the brightness that they are read with.
    """

    sha256: str | None
    square: np.ndarray | None = None
    picture: np.ndarray | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    frames: int = 1
    header: bytes | None = dataclasses.field(default=None, repr=False)
    refusal: tuple[str, str] | None = None
    is_shown_by_browsers: bool = True


@dataclasses.dataclass(frozen=True)
class EncodedSquare:
    """A file made ready for a data set, or why it is refused.

    Attributes:
      sha256: of the file's bytes, hexadecimal.
      png: lossless PNG of uint8 [size, size, 1]; None where the file was refused.
      source: `source_format`, `source_mode`, `source_width`, `source_height`.
      tags, warnings: as of `radiograph.Radiograph`.
      refusal: as of `Decoded`.
      errno: of the system, where the file could not be opened or read.
    """

    sha256: str | None
    png: bytes | None = None
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    refusal: tuple[str, str] | None = None
    errno: int | None = None


def parse_decoded(fields: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Decoded:
    """Return the answer of `imaging_tasks.decode_task`."""
    refusal = fields.get("refusal")
    made = dict(zip(fields.get("made", ()), arrays, strict=True))
    header = made.get("header")
    return Decoded(
        fields["sha256"],
        made.get("square"),
        made.get("picture"),
        tags=fields.get("tags", {}),
        warnings=tuple(fields.get("warnings", ())),
        frames=fields.get("frames", 1),
        header=None if header is None else header.tobytes(),
        refusal=tuple(refusal) if refusal else None,
        is_shown_by_browsers=fields.get("is_shown_by_browsers", True),
    )


def describe_refusal(error: TaskError) -> tuple[str, str]:
    """Return reason and detail of what ended a worker's task.

    They omit the text of the error, which might quote the file.
    """
    if isinstance(error, TaskMemoryError):
        return "too_large", f"decoding it takes more than {pool.MEMORY >> 20} MiB of memory"
    if isinstance(error, TaskTimeError):
        return "too_slow", f"decoding it takes more than {pool.SECONDS:.0f} s of processor time"
    if isinstance(error, TaskCrashError):
        return "decode_failed", f"the decoder crashed ({error})"
    return "decode_failed", f"decoding ended in {error}"


def digest(file: str | bytes) -> str | None:
    """Return the SHA-256 of a file by path or bytes, hexadecimal; None where it cannot be read."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        with regular_file.open_file(file, MAX_BYTES) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None
