"""Read and decode an input: a square for the network, a picture to draw on, facts for the row."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from batch_inference.inputs.study_key import StudyKey
from batch_inference.inputs.tasks import Task
from batch_inference.outputs import journal, progress
from batch_inference.outputs.records import (
    NO_DICOM_RESULT,
    Example,
    Prediction,
    Rejection,
    Source,
    reject,
)
from batch_inference.storage import filesystem, storage_errors
from trainer.workers.file_results import Decoded
from trainer.workers.imaging import Imaging


@dataclasses.dataclass(frozen=True)
class Decode:
    """Turns each task into an Example or a Rejection; of several frames, into one for each.

    Where an earlier attempt left a row and the file is the same, it returns that row.

    Attributes:
      image_size: side of the square that the model takes.
      picture_wanted: whether to keep what an overlay is drawn on.
      model_id: what rejections name as their model.
      study_key: names the study.
      header_wanted: whether to keep what DICOM results repeat of the file.
      all_frames: whether several frames of a file are taken one by one; else such a file is
        rejected.
      imaging: decodes, by default in the workers that this process shares.
    """

    image_size: int
    picture_wanted: bool
    model_id: str
    study_key: StudyKey
    all_frames: bool = False
    header_wanted: bool = False
    imaging: Imaging = dataclasses.field(default_factory=Imaging)

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Example | Rejection | journal.Entry]:
        """Return the results of all tasks; frames are decoded as they are asked for."""
        results = [self._decode(*pair) for pair in zip(tasks, self._try(tasks), strict=True)]
        return itertools.chain.from_iterable(results)

    def _try(self, tasks: Sequence[Task]) -> Sequence[Decoded | None]:
        """Decode the files of several tasks together; None stands for a file to decode alone."""
        places = [task.source.address or task.source.uri for task in tasks]
        if len(tasks) == 1 or any(map(filesystem.is_remote, places)):
            return [None] * len(tasks)
        return self.imaging.decode_together(
            list(map(filesystem.absolute, places)),
            [_find_known(task).keys() for task in tasks],
            image_size=self.image_size,
            picture=self.picture_wanted,
            all_frames=self.all_frames,
            header=self.header_wanted,
        )

    def _decode(
        self, task: Task, found: Decoded | None
    ) -> Iterable[Example | Rejection | journal.Entry]:
        source = task.source
        try:
            # A worker reads a local file itself, which spares a copy.
            place = source.address or source.uri
            remote = filesystem.is_remote(place)
            file = (filesystem.read if remote else filesystem.absolute)(place)
        except storage_errors.StorageError as error:
            too_large = isinstance(error, storage_errors.TooLargeError)
            refusal = ("too_large" if too_large else "unreadable", str(error))
            return [self._reject(source, Decoded(None, refusal=refusal), None)]
        whole = _find_known(task)
        found = found or self.imaging.decode(
            file,
            self.image_size,
            self.picture_wanted,
            list(whole),
            self.all_frames,
            self.header_wanted,
        )
        if found.frames > 1:
            known = {row.frame: row for row in task.known if row.sha256 == found.sha256}
            return self._each_frame(source, file, found.frames, known)
        if found.sha256 in whole and not found.refusal:
            return [self._keep(source, whole[found.sha256])]
        return [self._take(source, found, None)]

    def _each_frame(
        self,
        source: Source,
        file: str | bytes,
        number: int,
        known: Mapping[int | None, Prediction],
    ) -> Iterator[Example | Rejection | journal.Entry]:
        for frame in known:
            yield self._keep(source, known[frame])
        missing = [frame for frame in range(number) if frame not in known]
        decoded = self.imaging.decode_frames(
            file, self.image_size, self.picture_wanted, missing, self.header_wanted
        )
        for frame, found in zip(missing, decoded, strict=True):
            yield self._take(source, found, frame)

    def _take(self, source: Source, found: Decoded, frame: int | None) -> Example | Rejection:
        if found.square is None:
            return self._reject(source, found, frame)
        study = self.study_key(source, found.tags)
        assert found.sha256 is not None, "what was decoded was read"
        warnings = found.warnings
        if found.header == b"":
            warnings = tuple(sorted({*warnings, NO_DICOM_RESULT}))
        return Example(
            source,
            found.square,
            found.picture,
            found.sha256,
            study,
            frame,
            found.tags,
            warnings,
            found.header,
            found.is_shown_by_browsers,
        )

    def _keep(self, source: Source, known: Prediction) -> journal.Entry:
        progress.advance()
        study = self.study_key.rename(source, known.study)
        return journal.Entry(journal.digest(source), dataclasses.replace(known, study=study))

    def _reject(self, source: Source, found: Decoded, frame: int | None) -> Rejection:
        progress.advance()
        assert found.refusal is not None, "there is a reason where there are no pixels"
        return reject(source, *found.refusal, self.model_id, found.sha256, frame)


def _find_known(task: Task) -> dict[str, Prediction]:
    """Return the earlier rows of whole files, by the hash of the content."""
    return {row.sha256: row for row in task.known if row.frame is None}
