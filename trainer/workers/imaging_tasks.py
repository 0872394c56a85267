"""Decode files and draw maps in a worker: the tasks that `imaging.Imaging` hands over."""

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
from trainer.workers.file_results import Decoded, Wanted
from trainer.workers.worker import Result


def decode_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    wanted: Mapping[str, Any],
    known: Sequence[str],
    all_frames: bool,
) -> Result:
    """Decode one file as `Imaging.decode_many` does."""
    sha256 = None
    try:
        contents = _read_contents(path, arrays)
        sha256 = hashlib.sha256(contents).hexdigest()
        if sha256 in known:
            return Decoded(sha256).pack()
        if not all_frames:
            return _make_result(radiograph.read(contents), contents, sha256, wanted)
        number, read = radiograph.frames(contents)
        if number > 1:
            return Decoded(sha256, frames=number).pack()
        return _make_result(read(0), contents, sha256, wanted)
    except RadiographError as error:
        return Decoded(sha256, refusal=(error.reason, error.detail)).pack()
    except regular_file.TooLargeError as error:
        return Decoded(sha256, refusal=("too_large", str(error))).pack()
    except OSError as error:
        refusal = "unreadable", error.strerror or str(error)
        return Decoded(sha256, refusal=refusal, errno=error.errno).pack()


def frames_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    wanted: Mapping[str, Any],
    frames: Sequence[int],
) -> Iterator[Result]:
    """Decode frames of one file as `Imaging.decode_frames` does."""
    contents = _read_contents(path, arrays)
    sha256 = hashlib.sha256(contents).hexdigest()
    _, read = radiograph.frames(contents)
    for frame in frames:
        try:
            made = _make_result(read(frame), contents, sha256, wanted)
        except RadiographError as error:
            made = Decoded(sha256, refusal=(error.reason, error.detail)).pack()
        yield made


def draw_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    strip: Mapping[str, Any],
    with_strip: bool,
    file_format: str,
) -> Result:
    """Draw one map as `Imaging.draw_many` does; return its file, unless it is written to `path`."""
    picture, cam = arrays
    encoded = overlay.encode(legend.draw(picture, cam, Legend(**strip), with_strip), file_format)
    if path is not None:
        try:
            atomic_file.write(path, encoded)
            return {}, []
        except OSError:
            pass  # The parent tries again, and says why it fails.
    return {}, [np.frombuffer(encoded, np.uint8)]


def warm_task(arrays: Sequence[np.ndarray], colours: str) -> Result:
    """Draw a picture that nobody sees: the worker has then what drawing needs, such as the table of
    colours."""
    overlay.draw(
        np.zeros((8, 8), np.uint8), np.zeros((1, 1), np.float32), 8, 1.0, "overlay", colours
    )
    return {}, []


def _make_result(
    found: radiograph.Radiograph, contents: bytes, sha256: str, wanted: Mapping[str, Any]
) -> Result:
    what = Wanted(**wanted)
    square = radiograph.letterbox(found.pixels, what.image_size)
    header = None
    if what.header and found.source_format == "DICOM":
        from trainer.dicom_output import source_header  # pydicom takes seconds to import

        header = source_header.extract(contents) or b""
    height, width = found.pixels.shape
    return Decoded(
        sha256,
        square=None if what.png else square,
        picture=overlay.shrink(found.pixels) if what.picture else None,
        png=cv2.imencode(".png", square)[1].tobytes() if what.png else None,
        header=header,
        source={
            "source_format": found.source_format,
            "source_mode": found.source_mode,
            "source_width": str(width),
            "source_height": str(height),
        },
        tags=dict(found.tags),
        warnings=found.warnings,
    ).pack()


def _read_contents(path: str | None, arrays: Sequence[np.ndarray]) -> bytes:
    return arrays[0].tobytes() if path is None else regular_file.read(path, MAX_BYTES)
