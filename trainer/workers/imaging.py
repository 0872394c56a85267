"""What is done with pixels in worker processes: decoding a file, drawing a map on it, encoding it
for a data set.

Each `..._task` runs in a worker; the function of the same name hands it over. Pixels and pictures
are those that `radiograph` and
`overlay` make.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from trainer import radiograph
from trainer.drawing import legend, overlay
from trainer.drawing.legend import Legend
from trainer.files import regular_file
from trainer.radiograph import MAX_BYTES, RadiographError
from trainer.workers import pool
from trainer.workers.process import (
    TaskCrashError,
    TaskError,
    TaskMemoryError,
    TaskTimeError,
)
from trainer.workers.worker import Result

REASONS: dict[str, str] = {
    **radiograph.REASONS,
    "too_slow": "decoding takes more processor time than a file may take",
    "decode_failed": "decoding failed in a way that no other reason names",
}
"""Why a file cannot become pixels, when it is decoded by a worker."""
_FORMATS_OF_BROWSERS = ("PNG", "JPEG", "BMP", "WEBP")
_DEEP_MODES = ("grey16", "grey32", "float")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One picture of a file, or why there is none.

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


class Imaging:
    """Decodes, draws and encodes in the workers of a pool.

    A file is a local path, which the worker reads itself, or the bytes of one that lies elsewhere.

    Attributes:
      DECODE, FRAMES, ENCODE, DRAW, NOTHING: the tasks.
    """

    DECODE = f"{__name__}:decode_task"
    FRAMES = f"{__name__}:frames_task"
    ENCODE = f"{__name__}:encode_square_task"
    DRAW = f"{__name__}:draw_task"
    NOTHING = f"{__name__}:do_nothing_task"

    def __init__(self, workers: pool.Pool | None = None):
        """Take a pool; the one that this process shares by default."""
        self._workers = workers

    @property
    def _pool(self) -> pool.Pool:
        return self._workers or pool.shared()

    def warm(self) -> None:
        """Start the workers in the background, ahead of the first file."""
        self._pool.warm(self.NOTHING)

    def decode(
        self,
        file: str | bytes,
        image_size: int,
        picture: bool = False,
        known: Collection[str] = (),
        all_frames: bool = False,
        header: bool = False,
    ) -> Decoded:
        """Decode the only picture of a file; whatever happens to the worker is a refusal.

        Args:
          file: path or bytes.
          image_size: side of the square.
          picture: whether to return what an overlay is drawn on.
          known: SHA-256 of contents that need not be decoded.
          all_frames: of a file of several frames, return their number; else it is refused.
          header: whether to return what DICOM results repeat of a DICOM file.

        Raises:
          StoppedError: the program is ending.
        """
        path, sent = _path_and_arrays(file)
        try:
            fields, arrays = self._pool.run(
                self.DECODE,
                sent,
                path=path,
                image_size=image_size,
                picture=picture,
                known=list(known),
                all_frames=all_frames,
                header=header,
            )
        except TaskError as error:
            return Decoded(digest(file), refusal=_refusal(error))
        return _decoded(fields, arrays)

    def decode_frames(
        self,
        file: str | bytes,
        image_size: int,
        picture: bool,
        frames: Sequence[int],
        header: bool = False,
    ) -> Iterator[Decoded]:
        """Decode frames of a file as they are asked for; once the worker is lost, the rest of them
        are refused for the same reason."""
        done = 0
        path, sent = _path_and_arrays(file)
        try:
            for fields, arrays in self._pool.stream(
                self.FRAMES,
                sent,
                path=path,
                image_size=image_size,
                picture=picture,
                frames=list(frames),
                header=header,
            ):
                yield _decoded(fields, arrays)
                done += 1
        except TaskError as error:
            lost = Decoded(digest(file), refusal=_refusal(error))
            yield from (lost for _ in frames[done:])

    def encode_square(self, file: str | bytes, image_size: int) -> EncodedSquare:
        """Decode the only picture of a file and encode its square as PNG; raise and refuse as
        `decode`."""
        path, sent = _path_and_arrays(file)
        try:
            fields, arrays = self._pool.run(self.ENCODE, sent, path=path, image_size=image_size)
        except TaskError as error:
            return EncodedSquare(digest(file), refusal=_refusal(error))
        if "refusal" in fields:
            return EncodedSquare(
                fields["sha256"], refusal=tuple(fields["refusal"]), errno=fields["errno"]
            )
        return EncodedSquare(
            fields["sha256"],
            arrays[0].tobytes(),
            fields["source"],
            fields["tags"],
            tuple(fields["warnings"]),
        )

    def draw(
        self,
        picture: np.ndarray,
        cam: np.ndarray,
        image_size: int,
        scale: float,
        style: str,
        colours: str,
        file_format: str,
        strip: Legend | None = None,
    ) -> np.ndarray:
        """Draw a map as `overlay.draw` does, with a legend below it if `strip` is given; return the
        bytes of the picture's file, uint8 [n].

        Raises:
          TaskError: it could not be drawn.
          StoppedError: the program is ending.
        """
        _, (encoded,) = self._pool.run(
            self.DRAW,
            [picture, cam],
            image_size=image_size,
            scale=scale,
            style=style,
            colours=colours,
            file_format=file_format,
            strip=strip and dataclasses.asdict(strip),
        )
        return encoded


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
        contents = _contents(path, arrays)
        sha256 = hashlib.sha256(contents).hexdigest()
        if sha256 in known:
            return {"sha256": sha256}, []
        if not all_frames:
            found = radiograph.read(contents)
            return _made(found, contents, sha256, image_size, picture, header)
        number, read = radiograph.frames(contents)
        if number == 1:
            return _made(read(0), contents, sha256, image_size, picture, header)
        return {"sha256": sha256, "frames": number}, []
    except (RadiographError, OSError) as error:
        return {"sha256": sha256, "refusal": _reason(error)}, []


def frames_task(
    arrays: Sequence[np.ndarray],
    path: str | None,
    image_size: int,
    picture: bool,
    frames: Sequence[int],
    header: bool,
) -> Iterator[Result]:
    """Run `Imaging.decode_frames` in a worker."""
    contents = _contents(path, arrays)
    sha256 = hashlib.sha256(contents).hexdigest()
    number, read = radiograph.frames(contents)
    for frame in frames:
        try:
            made = _made(read(frame), contents, sha256, image_size, picture, header)
        except RadiographError as error:
            made = {"sha256": sha256, "refusal": _reason(error), "frames": number}, []
        yield made


def encode_square_task(arrays: Sequence[np.ndarray], path: str | None, image_size: int) -> Result:
    """Run `Imaging.encode_square` in a worker."""
    sha256 = None
    try:
        contents = _contents(path, arrays)
        sha256 = hashlib.sha256(contents).hexdigest()
        found = radiograph.read(contents)
    except (RadiographError, OSError) as error:
        number = getattr(error, "errno", None)
        return {"sha256": sha256, "refusal": _reason(error), "errno": number}, []
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
    arrays: Sequence[np.ndarray],
    image_size: int,
    scale: float,
    style: str,
    colours: str,
    file_format: str,
    strip: Mapping[str, Any] | None,
) -> Result:
    """Run `Imaging.draw` in a worker."""
    picture, cam = arrays
    drawn = overlay.draw(picture, cam, image_size, scale, style, colours)
    if strip is not None:
        drawn = legend.add(drawn, Legend(**strip))
    return {}, [np.frombuffer(overlay.encode(drawn, file_format), np.uint8)]


def do_nothing_task(arrays: Sequence[np.ndarray]) -> Result:
    """Do nothing; the worker has imported what the other tasks need."""
    return {}, []


def _made(
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


def _contents(path: str | None, arrays: Sequence[np.ndarray]) -> bytes:
    return arrays[0].tobytes() if path is None else regular_file.read(path, MAX_BYTES)


def _path_and_arrays(file: str | bytes) -> tuple[str | None, list[np.ndarray]]:
    return (file, []) if isinstance(file, str) else (None, [np.frombuffer(file, np.uint8)])


def _decoded(fields: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Decoded:
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


def _reason(error: RadiographError | OSError) -> list[str]:
    """Return reason and detail of a file that cannot be read or decoded, without its name."""
    if isinstance(error, RadiographError):
        return [error.reason, error.detail]
    if isinstance(error, regular_file.TooLargeError):
        return ["too_large", str(error)]
    return ["unreadable", error.strerror or str(error)]


def _refusal(error: TaskError) -> tuple[str, str]:
    """Return reason and detail of what ended a worker's task; the text of an error might quote the
    file."""
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
