"""Score single radiographs from Python: files in; labels, probabilities and maps out.

    from trainer.predictor import Predictor

    predict = Predictor("runs/first/artifact")
    for found in predict(["arm.dcm", "arm.png"]):
        print(found.file, found.label, found.probability)

Pixels, numbers and pictures are those of `humerus-score`, which is the tool for folders.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from trainer import machine, storage
from trainer.artifact import METHOD_TITLES, ONE_PASS_METHOD, Artifact
from trainer.drawing import legend
from trainer.errors import ConfigError, DataError
from trainer.inference import artifact_copy, engine_choice, engine_records, engines
from trainer.program.text_escaping import escape_name
from trainer.workers.file_results import Decoded
from trainer.workers.imaging import Imaging

File = str | os.PathLike[str] | bytes
"""A radiograph: a path, local or `gs://`, or the bytes of its file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one radiograph.

    Attributes:
      file: path as it was given; None for bytes.
      label: `positive` (abnormal), `negative`, or `uncertain` where the model has a band for that.
      probability: of the positive label, calibrated, in [0, 1].
      logit: of the positive label, before calibration.
      cam: class activation map, float32 [h, w], logits per cell of the model's square.
      radiograph: what the map is drawn on, uint8 [height, width], no side over 1,024 pixels.
      sha256: of the file's bytes, hexadecimal.
      warnings: what is odd about the file.
      model: the artifact that scored it.
    """

    file: str | None
    label: str
    probability: float
    logit: float
    cam: np.ndarray
    radiograph: np.ndarray
    sha256: str
    warnings: tuple[str, ...]
    model: Artifact = dataclasses.field(repr=False)

    def draw(
        self, style: str = "overlay", colours: str = "viridis", with_legend: bool = False
    ) -> np.ndarray:
        """Draw the map on the radiograph.

        Args:
          style: `overlay`, `heatmap` or `side_by_side`, as `humerus-score --cam` takes it.
          colours: `viridis` or `jet`.
          with_legend: whether a strip below it says what the colours mean.

        Returns:
          uint8 [height, width, 3] in RGB; twice as wide for `side_by_side`, higher with a legend.
        """
        strip = legend.Legend(
            scale=float(self.model.cam["scale"]),
            unit=legend.UNIT,
            method=METHOD_TITLES[ONE_PASS_METHOD],
            model=self.model.model_id,
            rows=self.cam.shape[0],
            columns=self.cam.shape[1],
            image_size=self.model.image_size,
            style=style,
            colours=colours,
        )
        drawn = legend.draw(self.radiograph, self.cam, strip, with_legend)
        return np.ascontiguousarray(drawn[:, :, ::-1])


class Predictor:
    """A model that is loaded once and scores any number of radiographs.

    Files are decoded in worker processes with limits on memory and time, so that a hostile one
    costs an exception only. Calls from several threads are safe.

    Attributes:
      model: the content of the artifact's `model.json`.
      engine: the engine that scores, named as in the rows of `humerus-score`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        engine: str = "auto",
        precision: str = "auto",
        threshold: float | None = None,
        batch_size: int = 8,
    ):
        """Load the network of an artifact.

        Args:
          model: the `artifact` folder of a run, local or `gs://`, or `hf://user/name[@revision]`.
          engine: `auto` (the fastest one that the artifact records as verified), `tensorflow`,
            `openvino` or `onnx`.
          precision: `auto`, or one of the engine.
          threshold: probability from which the label is positive; None for the artifact's own.
          batch_size: number of images that the network takes at once; fewer cost the same.

        Raises:
          ConfigError: there is no artifact, or the engine can't run here.
          ArtifactError: the artifact is damaged.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is not a number of images: take 1 or more")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold} is not a probability: take 0 to 1")
        folder, described = artifact_copy.open_artifact(os.fspath(model))
        choice = engine_choice.choose(described, engine, precision)
        self._engine = engines.load(folder, described, choice, batch_size, machine.cache_folder())
        self.model = described.with_threshold(threshold)
        self.engine = engine_records.identify(described, str(choice))
        self._batch_size = batch_size
        self._imaging = Imaging()
        self._process = os.getpid()

    def __call__(
        self, files: File | Iterable[File], skip_refused: bool = False
    ) -> list[Prediction]:
        """Score radiographs, in their order.

        Args:
          files: one radiograph, or several.
          skip_refused: leave out files that can't be scored, with a warning in the log each;
            otherwise the first one is an error.

        Returns:
          A prediction for each file that was scored.

        Raises:
          ConfigError: `files` is an open file, or the process was forked since this was made.
          DataError: a file can't be read, is no radiograph, or is larger than it may be; or the
            model answers no number.
        """
        if os.getpid() != self._process:
            raise ConfigError(
                "this Predictor was made before the process was forked, and would wait for threads"
                " that the child lacks; make it in the child"
            )
        if hasattr(files, "read"):
            raise ConfigError("expected paths or bytes, got an open file; pass file.read()")
        if isinstance(files, bytearray | memoryview):
            files = bytes(files)
        listed = [files] if isinstance(files, str | bytes | os.PathLike) else list(files)
        found: list[Prediction] = []
        with ThreadPoolExecutor(machine.cores()) as threads:
            for start in range(0, len(listed), self._batch_size):
                batch = listed[start : start + self._batch_size]
                decoded = zip(batch, threads.map(self._decode, batch), strict=True)
                found += self._score([pair for pair in decoded if _accept(*pair, skip_refused)])
        return found

    def _decode(self, file: File) -> Decoded:
        if not isinstance(file, bytes):
            file = os.fspath(file)
            if storage.is_remote(file):
                try:
                    found = storage.read_bytes(file)
                except OSError as error:
                    return Decoded(None, refusal=("unreadable", str(error)))
                if found is None:
                    return Decoded(None, refusal=("unreadable", "there is no such file"))
                file = found
        return self._imaging.decode(file, self.model.image_size, picture=True)

    def _score(self, batch: Sequence[tuple[File, Decoded]]) -> list[Prediction]:
        if not batch:
            return []
        size = self.model.image_size
        images = np.zeros((self._batch_size, size, size, 1), np.uint8)
        for image, (_, decoded) in zip(images, batch, strict=False):
            assert decoded.square is not None, "refused files are left out"
            image[:] = decoded.square
        outputs = self._engine.run(images)
        return [
            self._describe(file, decoded, {name: value[i] for name, value in outputs.items()})
            for i, (file, decoded) in enumerate(batch)
        ]

    def _describe(self, file: File, decoded: Decoded, output: dict[str, np.ndarray]) -> Prediction:
        assert decoded.picture is not None, "it was asked for"
        assert decoded.sha256 is not None, "what was decoded was read"
        probability = float(output["probability"])
        if not np.isfinite(probability):
            raise DataError(
                f"the model {self.model.model_id} answers probability {probability}: its training"
                " must have diverged; train it again"
            )
        return Prediction(
            file=_name(file),
            label=self.model.label(probability),
            probability=probability,
            logit=float(output["logit"]),
            cam=output["cam"].copy(),
            radiograph=decoded.picture,
            sha256=decoded.sha256,
            warnings=decoded.warnings,
            model=self.model,
        )


def _accept(file: File, decoded: Decoded, skip_refused: bool) -> bool:
    """Return whether a file became pixels; raise where it did not and must."""
    if decoded.refusal is None:
        return True
    name = escape_name(_name(file) or "the bytes of a file")
    sentence = f"{name} can't be scored ({': '.join(decoded.refusal)})"
    if not skip_refused:
        raise DataError(f"{sentence}; skip_refused=True leaves such files out")
    logging.warning("%s", sentence)
    return False


def _name(file: File) -> str | None:
    return None if isinstance(file, bytes) else os.fspath(file)
