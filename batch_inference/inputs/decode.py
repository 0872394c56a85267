"""Read and decode an input: a square for the network, a picture to draw on, facts for the row."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

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
from trainer.workers.file_results import Decoded, Wanted
from trainer.workers.imaging import Imaging


@dataclasses.dataclass(frozen=True)
class Decode:
    """Turns each task into an Example or a Rejection; of several frames, into one for each.

    Where an earlier attempt left a row and the file is the same, it returns that row.

    Attributes:
      wanted: what to make of each picture.
      model_id: what rejections name as their model.
      study_key: names the study.
      all_frames: whether several frames of a file are taken one by one; else such a file is
        rejected.
      imaging: decodes, by default in the workers that this process shares.
    """

    wanted: Wanted
    model_id: str
    study_key: StudyKey
    all_frames: bool = False
    imaging: Imaging = dataclasses.field(default_factory=Imaging)

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Example | Rejection | journal.Entry]:
        """Return the results of all tasks; frames are decoded as they are asked for."""
        groups = [tasks]
        if any(filesystem.is_remote(_locate(task)) for task in tasks):
            # Their contents are held here: that of one file at a time.
            groups = [[task] for task in tasks]
        results = [found for group in groups for found in self._decode(group)]
        return itertools.chain.from_iterable(results)

    def _decode(self, tasks: Sequence[Task]) -> list[Iterable[Example | Rejection | journal.Entry]]:
        try:
            files = [_open(task) for task in tasks]
        except storage_errors.StorageError as error:  # of a remote file, the only one here
            too_large = isinstance(error, storage_errors.TooLargeError)
            refusal = ("too_large" if too_large else "unreadable", str(error))
            return [[self._reject(tasks[0].source, Decoded(None, refusal=refusal), None)]]
        found = self.imaging.decode_many(
            files, self.wanted, [_find_known(task).keys() for task in tasks], self.all_frames
        )
        return [self._sort_out(*one) for one in zip(tasks, files, found, strict=True)]

    def _sort_out(
        self, task: Task, file: str | bytes, found: Decoded
    ) -> Iterable[Example | Rejection | journal.Entry]:
        if found.frames > 1:
            return self._each_frame(task, file, found)
        whole = _find_known(task)
        if found.sha256 in whole and not found.refusal:
            return [self._keep(task.source, whole[found.sha256])]
        return [self._take(task.source, found, None)]

    def _each_frame(
        self, task: Task, file: str | bytes, whole: Decoded
    ) -> Iterator[Example | Rejection | journal.Entry]:
        known = {row.frame: row for row in task.known if row.sha256 == whole.sha256}
        for row in known.values():
            yield self._keep(task.source, row)
        missing = [frame for frame in range(whole.frames) if frame not in known]
        decoded = self.imaging.decode_frames(file, self.wanted, missing)
        for frame, found in zip(missing, decoded, strict=True):
            yield self._take(task.source, found, frame)

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


def _locate(task: Task) -> str:
    return task.source.address or task.source.uri


def _open(task: Task) -> str | bytes:
    """Return the path of a local file, which a worker reads itself; the content of a remote one."""
    place = _locate(task)
    return filesystem.read(place) if filesystem.is_remote(place) else filesystem.absolute(place)


def _find_known(task: Task) -> dict[str, Prediction]:
    """Return the earlier rows of whole files, by the hash of the content."""
    return {row.sha256: row for row in task.known if row.frame is None}
