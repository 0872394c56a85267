"""One listed file -> the PNG that goes into its record, or the reason why it was refused."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import cv2

from trainer import machine, radiograph
from trainer.dataset.example import Example
from trainer.program import telemetry
from trainer.storage import is_remote, read_bytes

MISSING = "missing"
UNREADABLE = "unreadable"

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What became of one example.

    Attributes:
      example: as listed.
      sha256: of the file's content, hexadecimal; empty where there is no file.
      png: lossless PNG of uint8 [size, size, 1]; None where the file was refused.
      attributes: those of the source, `DERIVED_ATTRIBUTES`, and `dicom_modality`, `dicom_body_part`, `dicom_view` where known.
      reason: why it was refused: a key of `radiograph.REASONS`, or `missing`; None where it was taken.
      detail: the refusal in words.
    """

    example: Example
    sha256: str
    png: bytes | None = None
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    detail: str = ""


def encode(example: Example, image_size: int) -> Encoded:
    """Reads and letterboxes one file. Only what is wrong with the file is a refusal; a failing disk or network raises."""
    data = _read_regular_file(example.uri)
    if data is None:
        return _refuse_unread(example)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        source = radiograph.read(data)
    except radiograph.RadiographError as error:
        return Encoded(example, sha256, reason=error.reason, detail=error.detail)
    height, width = source.pixels.shape
    attributes = {
        f"dicom_{name}": source.tags[name]
        for name in ("modality", "body_part", "view")
        if name in source.tags
    }
    attributes |= {
        **example.attributes,
        "source_format": source.source_format,
        "source_mode": source.source_mode,
        "source_width": str(width),
        "source_height": str(height),
    }
    _, png = cv2.imencode(".png", radiograph.letterbox(source.pixels, image_size))
    return Encoded(example, sha256, png=png.tobytes(), attributes=attributes)


def content_hash(example: Example) -> str:
    """SHA-256 of the file's content, hexadecimal; empty where there is no file."""
    data = _read_regular_file(example.uri)
    return "" if data is None else hashlib.sha256(data).hexdigest()


def _read_regular_file(uri: str) -> bytes | None:
    """Return a file's content; None for a missing file, and for pipes, devices and folders."""
    # Opening a pipe waits for a writer, and a device may have no end.
    return read_bytes(uri) if is_remote(uri) or pathlib.Path(uri).is_file() else None


def _refuse_unread(example: Example) -> Encoded:
    if not is_remote(example.uri) and pathlib.Path(example.uri).exists():
        detail = "expected a regular file, found a folder, pipe, socket or device"
        return Encoded(example, sha256="", reason=UNREADABLE, detail=detail)
    return Encoded(example, sha256="", reason=MISSING, detail=f"there is no file {example.uri}")


def in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """`map(function, items)`, in order, on all cores, with a few items in flight rather than all of them."""
    # Decoders, hashes and file reads let go of the GIL; four threads at least, since remote reads wait more than they work.
    workers = max(4, machine.cores())
    pending: collections.deque[concurrent.futures.Future[_R]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                telemetry.report_progress()
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
