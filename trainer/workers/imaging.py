"""Decode files and draw maps in the workers of a pool.

`imaging_tasks` has what runs in a worker. Pixels and pictures are those that `radiograph` and
`overlay` make.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from trainer.drawing.legend import Legend
from trainer.workers import pool
from trainer.workers.file_results import Decoded, Wanted, digest
from trainer.workers.process import TaskCrashError, TaskError, TaskMemoryError, TaskTimeError

_TASKS = "trainer.workers.imaging_tasks"


class Imaging:
    """Decodes files and draws maps in the workers of a pool.

    A file is a local path, which the worker reads itself, or the bytes of one that lies elsewhere.
    All methods raise `PoolStoppedError` once the program is ending.

    Attributes:
      DECODE, FRAMES, DRAW, WARM: the tasks.
    """

    DECODE = f"{_TASKS}:decode_task"
    FRAMES = f"{_TASKS}:frames_task"
    DRAW = f"{_TASKS}:draw_task"
    WARM = f"{_TASKS}:warm_task"

    def __init__(self, workers: pool.Pool | None = None):
        """Take a pool; the one that this process shares by default."""
        self._workers = workers

    @property
    def _pool(self) -> pool.Pool:
        return self._workers or pool.shared()

    def warm(self, colours: str) -> None:
        """Start the workers in the background, ahead of the first file; maps are to be drawn in
        these colours."""
        self._pool.warm(self.WARM, colours=colours)

    def decode(
        self, file: str | bytes, image_size: int, picture: bool = False, png: bool = False
    ) -> Decoded:
        """Decode the only picture of a file, as `decode_many` does."""
        return self.decode_many([file], Wanted(image_size, picture, png=png))[0]

    def decode_many(
        self,
        files: Sequence[str | bytes],
        wanted: Wanted,
        known: Sequence[Collection[str]] | None = None,
        all_frames: bool = False,
    ) -> list[Decoded]:
        """Decode the only picture of each file; whatever happens to the worker is a refusal.

        Args:
          files: paths or bytes.
          wanted: what to make of each picture.
          known: of each file, the SHA-256 of contents that need not be decoded.
          all_frames: of a file of several frames, return their number; else it is refused.
        """
        shared = {"wanted": dataclasses.asdict(wanted), "all_frames": all_frames}
        calls = []
        for file, hashes in zip(files, known or [()] * len(files), strict=True):
            path, sent = _path_and_arrays(file)
            calls.append((sent, {"path": path, "known": list(hashes), **shared}))
        found = self._pool.run_many(self.DECODE, calls)
        return [_unpack(file, one) for file, one in zip(files, found, strict=True)]

    def decode_frames(
        self, file: str | bytes, wanted: Wanted, frames: Sequence[int]
    ) -> Iterator[Decoded]:
        """Decode frames of a file, by their indices, as they are asked for.

        Once the worker is lost, the rest of them are refused for the same reason.
        """
        done = 0
        path, sent = _path_and_arrays(file)
        arguments = {"path": path, "wanted": dataclasses.asdict(wanted), "frames": list(frames)}
        try:
            for result in self._pool.stream(self.FRAMES, sent, **arguments):
                yield _unpack(file, result)
                done += 1
        except TaskError as error:
            yield from [_unpack(file, error)] * len(frames[done:])

    def draw_many(
        self,
        pictures: Sequence[tuple[np.ndarray, np.ndarray]],
        paths: Sequence[str | None],
        legend: Legend,
        with_strip: bool,
        file_format: str,
    ) -> list[bytes | TaskError | None]:
        """Draw maps as `legend.draw` does.

        Args:
          pictures: the picture and the map of each.
          paths: of the local files to write; None for a picture to be returned.
          legend, with_strip: as of `legend.draw`.
          file_format: as of `overlay.encode`.

        Returns:
          None for each picture that was written; the bytes of its file where it was not, also where
          writing failed; or why it could not be drawn.
        """
        strip = dataclasses.asdict(legend)
        shared = {"strip": strip, "with_strip": with_strip, "file_format": file_format}
        calls = [
            (pair, {"path": path, **shared}) for pair, path in zip(pictures, paths, strict=True)
        ]
        return [_unpack_picture(found) for found in self._pool.run_many(self.DRAW, calls)]


def _path_and_arrays(file: str | bytes) -> tuple[str | None, list[np.ndarray]]:
    return (file, []) if isinstance(file, str) else (None, [np.frombuffer(file, np.uint8)])


def _unpack(file: str | bytes, found: pool.Result | TaskError) -> Decoded:
    """Return the answer of a task that decodes."""
    if not isinstance(found, TaskError):
        try:
            return Decoded.unpack(*found)
        except Exception:  # A worker that was taken over may answer anything.
            found = TaskCrashError("the answer is damaged")
    return Decoded(digest(file), refusal=_describe_refusal(found))


def _unpack_picture(found: pool.Result | TaskError) -> bytes | TaskError | None:
    """Return the answer of the task that draws."""
    if isinstance(found, TaskError):
        return found
    return found[1][0].tobytes() if found[1] else None


def _describe_refusal(error: TaskError) -> tuple[str, str]:
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
