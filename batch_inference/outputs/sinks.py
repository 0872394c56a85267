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
    float32,
    printable,
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
        drawn = self._draw_together(results)
        return [self._finish(scored, id(scored) in drawn) for scored in results]

    def _finish(self, scored: Scored | Rejection, is_drawn: bool) -> journal.Entry | Rejection:
        progress.advance()
        if isinstance(scored, Rejection):
            return scored
        example = scored.example
        try:
            cam = scored.stored or self._name_picture(scored)
            if cam and not scored.stored and not is_drawn:
                self._write_picture(scored, cam)
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
            uri=printable(example.source.uri),
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
        finding = dicom_results.Finding(
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
                example.header, kinds, finding, self.legend, picture, scored.cam
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

    def _draw_together(self, results: Sequence[Scored | Rejection]) -> set[int]:
        """Have a worker draw and write pictures; return the ids of the images of which it did."""
        if filesystem.is_remote(self.options.output):
            return set()
        images, paths, pictures = [], [], []
        for scored in results:
            if isinstance(scored, Rejection) or scored.stored or self._is_copied(scored):
                continue
            picture, path = scored.example.picture, self._name_picture(scored)
            if picture is not None and path:
                images.append(id(scored))
                paths.append(self._locate(path))
                pictures.append((picture, scored.cam))
        written = _imaging.draw_files(paths, pictures, *self._drawing()) if paths else []
        return {image for image, is_written in zip(images, written, strict=True) if is_written}

    def _is_copied(self, scored: Scored) -> bool:
        """Return whether a copy of the radiograph is kept beside the picture."""
        return not scored.example.is_shown_by_browsers and self.options.cam != "side_by_side"

    def _drawing(self) -> tuple[Legend, bool, str]:
        """Return the arguments of `Imaging.draw` that all pictures share."""
        return self.legend, self.options.cam_legend, self.options.cam_format

    def _write_picture(self, scored: Scored, path: str) -> None:
        picture = scored.example.picture
        assert picture is not None, "a picture that has a name is drawn"
        encoded = _imaging.draw(picture, scored.cam, *self._drawing())
        # The copy comes first, so that a picture that is there has its copy beside it.
        if self._is_copied(scored):
            copy = self._locate(picture_paths.original_path(path))
            filesystem.write(copy, overlay.encode(picture, "jpeg"), overlay.MIME_TYPES["jpeg"])
        mime_type = overlay.MIME_TYPES[self.options.cam_format]
        filesystem.write(self._locate(path), encoded.tobytes(), mime_type)

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
