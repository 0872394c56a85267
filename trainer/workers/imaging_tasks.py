"""Decode, draw and encode in a worker: the tasks that `imaging.Imaging` hands over."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from trainer import radiograph
from trainer.drawing import legend, overlay
from trainer.drawing.legend import Legend
from trainer.files import atomic_file, regular_file
from trainer.radiograph import MAX_BYTES, RadiographError
from trainer.workers.worker import Result

_FORMATS_OF_BROWSERS = ("PNG", "JPEG", "BMP", "WEBP")
_DEEP_MODES = ("grey16", "grey32", "float")


def decode_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    image_size: int,
    picture: bool,
    known: Sequence[str],
    all_frames: bool,
    header: bool,
) -> Result:
    """Run `Imaging.decode` in a worker."""
    sha256 = None
    try:
        contents = _read_contents(path, arrays)
        sha256 = hashlib.sha256(contents).hexdigest()
        if sha256 in known:
            return {"sha256": sha256}, []
        if not all_frames:
            found = radiograph.read(contents)
            return _pack_result(found, contents, sha256, image_size, picture, header)
        number, read = radiograph.frames(contents)
        if number == 1:
            return _pack_result(read(0), contents, sha256, image_size, picture, header)
        return {"sha256": sha256, "frames": number}, []
    except (RadiographError, OSError) as error:
        return {"sha256": sha256, "refusal": _describe_refusal(error)}, []


def decode_together_task(
    arrays: Sequence[np.ndarray],
    paths: Sequence[str],
    known: Sequence[Sequence[str]],
    **arguments: Any,
) -> Result:
    """Run `Imaging.decode_together` in a worker."""
    found: list[dict[str, Any] | None] = []
    made: list[np.ndarray] = []
    for path, hashes in zip(paths, known, strict=True):
        try:
            fields, of_file = decode_task([], path, known=hashes, **arguments)
        except Exception:
            fields, of_file = {"refusal": None}, []
        found.append(None if "refusal" in fields else fields)
        made += of_file
    return {"found": found}, made


def frames_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    image_size: int,
    picture: bool,
    frames: Sequence[int],
    header: bool,
) -> Iterator[Result]:
    """Run `Imaging.decode_frames` in a worker."""
    contents = _read_contents(path, arrays)
    sha256 = hashlib.sha256(contents).hexdigest()
    number, read = radiograph.frames(contents)
    for frame in frames:
        try:
            made = _pack_result(read(frame), contents, sha256, image_size, picture, header)
        except RadiographError as error:
            made = {"sha256": sha256, "refusal": _describe_refusal(error), "frames": number}, []
        yield made


def encode_square_task(arrays: Sequence[np.ndarray], path: str | None, image_size: int) -> Result:
    """Run `Imaging.encode_square` in a worker."""
    sha256 = None
    try:
        contents = _read_contents(path, arrays)
        sha256 = hashlib.sha256(contents).hexdigest()
        found = radiograph.read(contents)
    except (RadiographError, OSError) as error:
        number = getattr(error, "errno", None)
        return {"sha256": sha256, "refusal": _describe_refusal(error), "errno": number}, []
    height, width = found.pixels.shape
    source = {
        "source_format": found.source_format,
        "source_mode": found.source_mode,
        "source_width": str(width),
        "source_height": str(height),
    }
    _, png = cv2.imencode(".png", radiograph.letterbox(found.pixels, image_size))
    fields = {"source": source, "tags": dict(found.tags), "warnings": found.warnings}
    return {"sha256": sha256, **fields}, [png]


def draw_task(
    arrays: Sequence[np.ndarray], strip: Mapping[str, Any], with_strip: bool, file_format: str
) -> Result:
    """Run `Imaging.draw` in a worker."""
    picture, cam = arrays
    drawn = legend.draw(picture, cam, Legend(**strip), with_strip)
    return {}, [np.frombuffer(overlay.encode(drawn, file_format), np.uint8)]


def draw_files_task(arrays: Sequence[np.ndarray], paths: Sequence[str], **arguments: Any) -> Result:
    """Run `Imaging.draw_files` in a worker."""
    written = []
    for path, picture, cam in zip(paths, arrays[::2], arrays[1::2], strict=True):
        try:
            _, (encoded,) = draw_task([picture, cam], **arguments)
            atomic_file.write(path, encoded.tobytes())
            written.append(True)
        except Exception:
            written.append(False)
    return {"written": written}, []


def warm_task(arrays: Sequence[np.ndarray], colours: str) -> Result:
    """Draw a picture that nobody sees: the worker has then what drawing needs, such as the table of
    colours."""
    overlay.draw(
        np.zeros((8, 8), np.uint8), np.zeros((1, 1), np.float32), 8, 1.0, "overlay", colours
    )
    return {}, []


def _pack_result(
    found: radiograph.Radiograph,
    contents: bytes,
    sha256: str,
    image_size: int,
    picture: bool,
    header: bool,
) -> Result:
    made = {"square": radiograph.letterbox(found.pixels, image_size)}
    if picture:
        made["picture"] = overlay.shrink(found.pixels)
    if header and found.source_format == "DICOM":
        from trainer.dicom_output import source_header  # pydicom takes seconds to import

        extracted = source_header.extract(contents) or b""
        made["header"] = np.frombuffer(extracted, np.uint8)
    fields = {
        "sha256": sha256,
        "tags": dict(found.tags),
        "warnings": found.warnings,
        "is_shown_by_browsers": _is_shown_by_browsers(found),
    }
    return {**fields, "made": list(made)}, list(made.values())


def _is_shown_by_browsers(found: radiograph.Radiograph) -> bool:
    deep = found.source_mode in _DEEP_MODES
    return found.source_format in _FORMATS_OF_BROWSERS and not deep


def _read_contents(path: str | None, arrays: Sequence[np.ndarray]) -> bytes:
    return arrays[0].tobytes() if path is None else regular_file.read(path, MAX_BYTES)


def _describe_refusal(error: RadiographError | OSError) -> list[str]:
    """Return reason and detail of a file that cannot be read or decoded, without its name."""
    if isinstance(error, RadiographError):
        return [error.reason, error.detail]
    if isinstance(error, regular_file.TooLargeError):
        return ["too_large", str(error)]
    return ["unreadable", error.strerror or str(error)]
