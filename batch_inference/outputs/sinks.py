"""What is made of a scored image: a picture and a row."""

import dataclasses

from batch_inference.outputs import journal, picture_paths, progress
from batch_inference.outputs.records import (
    Prediction,
    Rejection,
    Scored,
    float32,
    printable,
    reject_example,
)
from batch_inference.storage import filesystem
from trainer import overlay
from trainer.artifact import Artifact
from trainer.workers.imaging import Imaging

_imaging = Imaging()


@dataclasses.dataclass(frozen=True)
class Finish:
    """Turns what was scored into a journal entry with its row, after its picture is drawn and
    written; or into a Rejection.

    Attributes:
      output: folder of the run.
      described: the model's artifact.
      engine: what the row names as its engine.
      style: as --cam of humerus-score.
      file_format: key of `overlay.FORMATS`.
      colours: key of `overlay.COLOURS`.
      min_probability: below it no picture is drawn.
    """

    output: str
    described: Artifact
    engine: str
    style: str
    file_format: str
    colours: str
    min_probability: float

    def __call__(self, scored: Scored | Rejection) -> journal.Entry | Rejection:
        progress.advance()
        if isinstance(scored, Rejection):
            return scored
        example = scored.example
        try:
            cam = scored.stored or self._write_picture(scored)
        except filesystem.UnwritableError:
            raise
        except Exception as error:
            # One picture that cannot be drawn or stored must not cost the rest of the bundle.
            return reject_example(example, "write_failed", str(error), self.described.model_id)
        row = Prediction(
            uri=printable(example.source.uri),
            label=self.described.label(scored.probability),
            probability=float32(scored.probability),
            logit=float32(scored.logit),
            study=example.study,
            cam=cam,
            model=self.described.model_id,
            engine=self.engine,
            brightness=float32(example.pixels.mean()),
            sha256=example.sha256,
            frame=example.frame,
            modality=example.tags.get("modality"),
            body_part=example.tags.get("body_part"),
            view=example.tags.get("view"),
            warnings=example.warnings,
            carried=dict(example.source.carried),
        )
        return journal.Entry(journal.digest(example.source), row)

    def _write_picture(self, scored: Scored) -> str | None:
        picture = scored.example.picture
        if picture is None or scored.probability < self.min_probability:
            return None
        scale = self.described.cam["scale"]
        encoded = _imaging.draw(
            picture,
            scored.cam,
            self.described.image_size,
            scale,
            self.style,
            self.colours,
            self.file_format,
        )
        path = picture_paths.cam_path(
            scored.example.source.name, overlay.FORMATS[self.file_format], scored.example.frame
        )
        # The copy comes first, so that a picture that is there has its copy beside it.
        if not scored.example.is_shown_by_browsers and self.style != "side_by_side":
            copy = filesystem.join(self.output, picture_paths.original_path(path))
            filesystem.write(copy, overlay.encode(picture, "jpeg"), overlay.MIME_TYPES["jpeg"])
        filesystem.write(
            filesystem.join(self.output, path),
            encoded.tobytes(),
            overlay.MIME_TYPES[self.file_format],
        )
        return path
