"""Reading and decoding of an input: what the network takes, what the overlay is drawn on, and what the row says of the file."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from batch_inference import journal, progress, storage
from batch_inference.records import Example, Rejection, Source, reject
from batch_inference.study_key import StudyKey
from batch_inference.tasks import Task
from trainer import overlay, radiograph


@dataclasses.dataclass(frozen=True)
class Decode:
    """Task -> Examples, or Rejections: one, or one for each frame; or the row that is known, where the file is still the same.

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
            contents = storage.read(source.uri)
            sha256 = hashlib.sha256(contents).hexdigest()
            if task.known and task.known.sha256 == sha256:
                progress.advance()
                return [journal.Entry(journal.digest(source), task.known)]
            frames = radiograph.frames(contents) if self.all_frames else [lambda: radiograph.read(contents)]
        except Exception as error:
            return [self._reject(source, error, sha256, None)]
        if len(frames) == 1:
            return [self._take(source, sha256, frames[0], None)]
        return self._each(source, sha256, frames)

    def _each(
        self, source: Source, sha256: str, frames: Sequence[Callable[[], radiograph.Radiograph]]
    ) -> Iterator[Example | Rejection]:
        for index, read in enumerate(frames):
            yield self._take(source, sha256, read, index)

    def _take(
        self, source: Source, sha256: str, read: Callable[[], radiograph.Radiograph], frame: int | None
    ) -> Example | Rejection:
        try:
            found = read()
            picture = overlay.shrink(found.pixels) if self.picture_wanted else None
            study, pixels = self.study_key(source, found.tags), radiograph.letterbox(found.pixels, self.image_size)
            return Example(source, pixels, picture, sha256, study, frame, found.tags)
        except Exception as error:
            return self._reject(source, error, sha256, frame)

    def _reject(self, source: Source, error: Exception, sha256: str | None, frame: int | None) -> Rejection:
        progress.advance()
        return reject(source, *_why(error), self.model_id, sha256, frame)


def _why(error: Exception) -> tuple[str, str]:
    """Reason and detail of whatever kept an input from being decoded."""
    if isinstance(error, radiograph.RadiographError):
        return error.reason, error.detail
    if isinstance(error, storage.TooLargeError):
        return "too_large", str(error)
    if isinstance(error, storage.StorageError):
        return "unreadable", str(error)
    # Including MemoryError: one file must not end the run. Its text might quote the file, so it is left out.
    return "decode_failed", f"decoding ended in {type(error).__name__}"
