"""Reading and decoding of an input: what the network takes, what the overlay is drawn on, and what the row says of the file."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from batch_inference.inputs.study_key import StudyKey
from batch_inference.inputs.tasks import Task
from batch_inference.outputs import journal, progress
from batch_inference.outputs.records import Example, Prediction, Rejection, Source, reject
from batch_inference.storage import filesystem
from trainer import overlay, radiograph
from trainer.engines import usable_cores

_decoding = threading.BoundedSemaphore(usable_cores())
"""Of the many threads that wait for storage, no more than there are cores decode at a time: each takes up to a gigabyte."""


@dataclasses.dataclass(frozen=True)
class Decode:
    """Task -> Examples, or Rejections: one, or one for each frame; or the rows that are known, where the file is still the same.

    Attributes:
      image_size: side of the square that the model takes.
      picture_wanted: whether to keep what an overlay is drawn on.
      model_id: what rejections name as their model.
      study_key: names the study.
      all_frames: whether several frames of a file are taken one by one; else such a file is rejected.
    """

    image_size: int
    picture_wanted: bool
    model_id: str
    study_key: StudyKey
    all_frames: bool = False

    def __call__(self, task: Task) -> Iterable[Example | Rejection | journal.Entry]:
        """Several frames are decoded as they are asked for, so that a long film needs the memory of a few frames."""
        source, sha256 = task.source, None
        try:
            contents = filesystem.read(source.uri)
            sha256 = hashlib.sha256(contents).hexdigest()
            known = {row.frame: row for row in task.known if row.sha256 == sha256}
            if None in known:
                return [self._keep(source, known[None])]
            if not self.all_frames:
                return [self._take(source, sha256, lambda _: radiograph.read(contents), None)]
            with _decoding:
                number, read = radiograph.frames(contents)
        except Exception as error:
            return [self._reject(source, error, sha256, None)]
        if number == 1:
            return [self._take(source, sha256, read, None)]
        return self._each(source, sha256, number, read, known)

    def _each(
        self,
        source: Source,
        sha256: str,
        number: int,
        read: Callable[[int], radiograph.Radiograph],
        known: Mapping[int | None, Prediction],
    ) -> Iterator[Example | Rejection | journal.Entry]:
        for frame in range(number):
            yield (
                self._keep(source, known[frame])
                if frame in known
                else self._take(source, sha256, read, frame)
            )

    def _take(
        self,
        source: Source,
        sha256: str,
        read: Callable[[int], radiograph.Radiograph],
        frame: int | None,
    ) -> Example | Rejection:
        try:
            with _decoding:
                found = read(frame or 0)
                picture = overlay.shrink(found.pixels) if self.picture_wanted else None
                study, pixels = (
                    self.study_key(source, found.tags),
                    radiograph.letterbox(found.pixels, self.image_size),
                )
            return Example(
                source, pixels, picture, sha256, study, frame, found.tags, found.warnings
            )
        except Exception as error:
            return self._reject(source, error, sha256, frame)

    def _keep(self, source: Source, known: Prediction) -> journal.Entry:
        progress.advance()
        return journal.Entry(journal.digest(source), known)

    def _reject(
        self, source: Source, error: Exception, sha256: str | None, frame: int | None
    ) -> Rejection:
        progress.advance()
        return reject(source, *_why(error), self.model_id, sha256, frame)


def _why(error: Exception) -> tuple[str, str]:
    """Reason and detail of whatever kept an input from being decoded."""
    if isinstance(error, radiograph.RadiographError):
        return error.reason, error.detail
    if isinstance(error, filesystem.TooLargeError):
        return "too_large", str(error)
    if isinstance(error, filesystem.StorageError):
        return "unreadable", str(error)
    # Including MemoryError: one file must not end the run. Its text might quote the file, so it is left out.
    return "decode_failed", f"decoding ended in {type(error).__name__}"
