"""Make the outputs of a scored image: a picture, results in DICOM, and a row."""

import dataclasses
from collections.abc import Sequence

import cv2

from batch_inference.options import Options
from batch_inference.outputs import journal, picture_paths, progress
from batch_inference.outputs.records import (
    NO_DICOM_RESULT,
    Prediction,
    Rejection,
    Scored,
    escape_reversibly,
    float32,
    reject_example,
)
from batch_inference.storage import filesystem, storage_errors
from trainer.artifact import Artifact
from trainer.drawing import overlay
from trainer.drawing.legend import Legend
from trainer.workers import dicom_results
from trainer.workers.imaging import Imaging
from trainer.workers.process import TaskError

_imaging = Imaging()


@dataclasses.dataclass(frozen=True)
class Finish:
    """Turns each scored image into a journal entry with its row, after its picture and its DICOM
    results are written; or into a Rejection.

    Attributes:
      options: what is drawn and written, and where; the output is absolute.
      described: the model's artifact.
      engine: what the row names as its engine.
      legend: how maps are drawn, and what the strip below them says.
      deletes_former: whether an earlier attempt may have left pictures of these images that this
        one does not replace.
    """

    options: Options
    described: Artifact
    engine: str
    legend: Legend
    deletes_former: bool = False

    def __call__(self, results: Sequence[Scored | Rejection]) -> list[journal.Entry | Rejection]:
        drawn = self._draw([scored for scored in results if isinstance(scored, Scored)])
        return [self._finish(scored, drawn.get(id(scored))) for scored in results]

    def _finish(
        self, scored: Scored | Rejection, drawn: bytes | TaskError | None
    ) -> journal.Entry | Rejection:
        progress.advance()
        if isinstance(scored, Rejection):
            return scored
        example = scored.example
        try:
            if isinstance(drawn, TaskError):
                raise drawn
            cam = scored.stored or self._name_picture(scored)
            if cam and drawn:
                self._write_picture(scored, cam, drawn)
            if cam and self.deletes_former:
                self._delete_former(scored, cam)
            dicom = self._write_dicom(scored, has_picture=cam is not None)
        except storage_errors.UnwritableError:
            raise
        except Exception as error:
            # One picture that cannot be drawn or stored must not cost the rest of the bundle.
            return reject_example(example, "write_failed", str(error), self.described.model_id)
        notes = [NO_DICOM_RESULT] if dicom is None else []
        row = Prediction(
            uri=escape_reversibly(example.source.uri),
            label=self.described.label(scored.probability),
            probability=float32(scored.probability),
            logit=float32(scored.logit),
            study=example.study,
            cam=cam,
            model=self.described.model_id,
            engine=self.engine,
            brightness=float32(cv2.sumElems(example.pixels)[0] / example.pixels.size),
            sha256=example.sha256,
            frame=example.frame,
            modality=example.tags.get("modality"),
            body_part=example.tags.get("body_part"),
            view=example.tags.get("view"),
            warnings=tuple(sorted({*example.warnings, *notes})),
            dicom=dicom or (),
            carried=dict(example.source.carried),
        )
        return journal.Entry(journal.digest(example.source), row)

    def _write_dicom(self, scored: Scored, has_picture: bool) -> tuple[str, ...] | None:
        """Write the DICOM results and return their paths; None where they cannot be made."""
        example, described = scored.example, self.described
        kinds = [kind for kind in self.options.dicom if kind != "sc" or has_picture]
        if not kinds or not example.header:
            return ()
        result = dicom_results.ModelResult(
            described.label(scored.probability),
            float32(scored.probability),
            described.model_id,
            self.engine,
            example.frame,
            described.threshold,
            self.options.method,
            described.created,
        )
        picture = example.picture if "sc" in kinds else None
        try:
            files = dicom_results.make(
                example.header, kinds, result, self.legend, picture, scored.cam
            )
        except TaskError:
            return None
        paths = [
            picture_paths.dicom_path(example.source.name, kind, example.frame) for kind in kinds
        ]
        for path, contents in zip(paths, files, strict=True):
            filesystem.write(self._locate(path), contents, "application/dicom")
        return tuple(paths)

    def _name_picture(self, scored: Scored) -> str | None:
        """Return the path of the picture, relative to the output; None where none is drawn."""
        example, options = scored.example, self.options
        if example.picture is None or scored.probability < options.cam_min_probability:
            return None
        ending = overlay.FORMATS[options.cam_format]
        return picture_paths.cam_path(example.source.name, ending, example.frame)

    def _draw(self, results: Sequence[Scored]) -> dict[int, bytes | TaskError | None]:
        """Have workers draw pictures and write them, where these are local and written alone.

        Returns:
          By the id of each image that is drawn, what `Imaging.draw_many` returns.
        """
        is_remote = filesystem.is_remote(self.options.output)
        images, pictures, paths = [], [], []
        for scored in results:
            picture, path = scored.example.picture, self._name_picture(scored)
            if picture is not None and path and not scored.stored:
                images.append(id(scored))
                pictures.append((picture, scored.cam))
                is_alone = not is_remote and not self._is_copied(scored)
                paths.append(self._locate(path) if is_alone else None)
        options = self.options
        drawn = _imaging.draw_many(
            pictures, paths, self.legend, options.cam_legend, options.cam_format
        )
        return dict(zip(images, drawn, strict=True))

    def _is_copied(self, scored: Scored) -> bool:
        """Return whether a copy of the radiograph is kept beside the picture."""
        return not scored.example.is_shown_by_browsers and self.options.cam != "side_by_side"

    def _write_picture(self, scored: Scored, path: str, drawn: bytes) -> None:
        # The copy comes first, so that a picture that is there has its copy beside it.
        if self._is_copied(scored):
            assert scored.example.picture is not None, "a picture that is drawn is there"
            copy = self._locate(picture_paths.original_path(path))
            encoded = overlay.encode(scored.example.picture, "jpeg")
            filesystem.write(copy, encoded, overlay.MIME_TYPES["jpeg"])
        mime_type = overlay.MIME_TYPES[self.options.cam_format]
        filesystem.write(self._locate(path), drawn, mime_type)

    def _delete_former(self, scored: Scored, cam: str) -> None:
        """Delete the pictures of a file's earlier content that this run does not overwrite."""
        name, frame = scored.example.source.name, scored.example.frame
        if scored.stored:
            for ending in overlay.FORMATS.values():
                filesystem.delete_file(self._locate(picture_paths.cam_path(name, ending, frame)))
        elif not self._is_copied(scored):
            filesystem.delete_file(self._locate(picture_paths.original_path(cam)))

    def _locate(self, path: str) -> str:
        return filesystem.join(self.options.output, path)
