"""Encode a listed file as the PNG of its record, or return why it is rejected."""

import dataclasses
import errno
import os
from collections.abc import Mapping

from trainer.dataset.example import Example
from trainer.storage import is_remote, read_bytes
from trainer.workers import file_results, imaging

MISSING = "missing"
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
_FAILING_STORAGE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE}
_imaging = imaging.Imaging()


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Says what became of one example.

    Attributes:
      example: as listed.
      sha256: of the file's content, hexadecimal; empty where it could not be read.
      png: lossless PNG of uint8 [size, size, 1]; None where the file was refused.
      attributes: those of the source, `DERIVED_ATTRIBUTES`, and `dicom_modality`,
        `dicom_body_part`, `dicom_view` where known.
      warnings: keys of `radiograph.WARNINGS`.
      reason: why it was refused: a key of `file_results.REASONS`, `unreadable` or `missing`; None
        where it was taken.
      detail: the refusal in words.
    """

    example: Example
    sha256: str
    png: bytes | None = None
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""


def encode(example: Example, image_size: int) -> Encoded:
    """Read and letterbox one file in a worker process; only what is wrong with the file is a
    refusal.

    Raises:
      OSError, OpError: the disk or the network fails.
    """
    file = _file(example)
    if file is None:
        return _reject_missing(example)
    found = _imaging.decode(file, image_size, png=True)
    if found.errno in _NOT_THERE:
        return _reject_missing(example)
    if found.errno in _FAILING_STORAGE:
        raise OSError(found.errno, os.strerror(found.errno), example.uri)
    sha256 = found.sha256 or ""
    if found.refusal:
        reason, detail = found.refusal
        return Encoded(example, sha256, reason=reason, detail=detail)
    attributes = {
        f"dicom_{name}": found.tags[name]
        for name in ("modality", "body_part", "view")
        if name in found.tags
    }
    attributes |= {**example.attributes, **found.source}
    return Encoded(example, sha256, found.png, attributes, found.warnings)


def content_hash(example: Example) -> str:
    """Return the SHA-256 of the file's content, hexadecimal; empty where it cannot be read."""
    file = _file(example)
    return (file is not None and file_results.digest(file)) or ""


def _file(example: Example) -> str | bytes | None:
    """Return the path of a local file, the content of a remote one; None where the latter is
    missing."""
    return read_bytes(example.uri) if is_remote(example.uri) else example.uri


def _reject_missing(example: Example) -> Encoded:
    return Encoded(example, sha256="", reason=MISSING, detail=f"there is no file {example.uri}")
