"""Decode files, draw maps and encode squares for a data set, in the workers of a pool.

`imaging_tasks` has what runs in a worker. Pixels and pictures are those that `radiograph` and
`overlay` make.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.drawing.legend import Legend
from trainer.workers import pool
from trainer.workers.file_results import (
    Decoded,
    EncodedSquare,
    describe_refusal,
    digest,
    parse_decoded,
)
from trainer.workers.process import TaskError

_TASKS = "trainer.workers.imaging_tasks"


class Imaging:
    """Decodes, draws and encodes in the workers of a pool.

    A file is a local path, which the worker reads itself, or the bytes of one that lies elsewhere.

    Attributes:
      DECODE, TOGETHER, FRAMES, ENCODE, DRAW, FILES, WARM: the tasks.
    """

    DECODE = f"{_TASKS}:decode_task"
    TOGETHER = f"{_TASKS}:decode_together_task"
    FRAMES = f"{_TASKS}:frames_task"
    ENCODE = f"{_TASKS}:encode_square_task"
    DRAW = f"{_TASKS}:draw_task"
    FILES = f"{_TASKS}:draw_files_task"
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
            return Decoded(digest(file), refusal=describe_refusal(error))
        return parse_decoded(fields, arrays)

    def decode_together(
        self, paths: Sequence[str], known: Sequence[Collection[str]], **arguments: Any
    ) -> list[Decoded | None]:
        """Decode local files in one task, which costs less than one for each.

        They share the limits of one task. A file that fails here is None, whatever the reason; call
        `decode` to learn what becomes of it alone.

        Args:
          paths: of the files.
          known: as of `decode`, for each file.
          arguments: all others of `decode`, by name.

        Raises:
          StoppedError: the program is ending.
        """
        try:
            fields, arrays = self._pool.run(
                self.TOGETHER,
                [],
                paths=list(paths),
                known=list(map(list, known)),
                **arguments,
            )
            rest = iter(arrays)
            found = [
                one and parse_decoded(one, [next(rest) for _ in one.get("made", ())])
                for one in fields["found"]
            ]
        except pool.StoppedError:
            raise
        except Exception:  # also where a worker that was taken over answers anything
            return [None] * len(paths)
        return found if len(found) == len(paths) else [None] * len(paths)

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
                yield parse_decoded(fields, arrays)
                done += 1
        except TaskError as error:
            lost = Decoded(digest(file), refusal=describe_refusal(error))
            yield from (lost for _ in frames[done:])

    def encode_square(self, file: str | bytes, image_size: int) -> EncodedSquare:
        """Decode the only picture of a file and encode its square as PNG; raise and refuse as
        `decode`."""
        path, sent = _path_and_arrays(file)
        try:
            fields, arrays = self._pool.run(self.ENCODE, sent, path=path, image_size=image_size)
        except TaskError as error:
            return EncodedSquare(digest(file), refusal=describe_refusal(error))
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
        legend: Legend,
        with_strip: bool,
        file_format: str,
    ) -> np.ndarray:
        """Draw a map as `legend.draw` does; return the bytes of the picture's file, uint8 [n].

        Raises:
          TaskError: it could not be drawn.
          StoppedError: the program is ending.
        """
        _, (encoded,) = self._pool.run(
            self.DRAW,
            [picture, cam],
            strip=dataclasses.asdict(legend),
            with_strip=with_strip,
            file_format=file_format,
        )
        return encoded

    def draw_files(
        self,
        paths: Sequence[str],
        pictures: Sequence[tuple[np.ndarray, np.ndarray]],
        legend: Legend,
        with_strip: bool,
        file_format: str,
    ) -> list[bool]:
        """Draw maps as `draw` does, in one task, and write them to local files.

        Args:
          paths: of the files to write.
          pictures: the picture and the map of each; all others are as of `draw`.

        Returns:
          Whether each picture was written. If one was not, call `draw` and write its file to learn
          why.

        Raises:
          StoppedError: the program is ending.
        """
        try:
            fields, _ = self._pool.run(
                self.FILES,
                list(itertools.chain.from_iterable(pictures)),
                paths=list(paths),
                strip=dataclasses.asdict(legend),
                with_strip=with_strip,
                file_format=file_format,
            )
            written = [one is True for one in fields["written"]]
        except pool.StoppedError:
            raise
        except Exception:
            return [False] * len(paths)
        return written if len(written) == len(paths) else [False] * len(paths)


def _path_and_arrays(file: str | bytes) -> tuple[str | None, list[np.ndarray]]:
    return (file, []) if isinstance(file, str) else (None, [np.frombuffer(file, np.uint8)])
