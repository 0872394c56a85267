"""Do all engines say what the exported model says? Measured on images and recorded in the artifact, so that a scorer may choose."""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from trainer import artifact, engines, radiograph, storage
from trainer.artifact import Artifact
from trainer.dataset import input_pipeline
from trainer.dataset.input_pipeline import Split
from trainer.engines import Choice
from trainer.errors import ConfigError, DataError
from trainer.evaluation import agreement, evaluate, finding_masks, map_checks
from trainer.network import trained_network
from trainer.program import telemetry
from trainer.publishing import model_card, quantize

CALIBRATION_IMAGES = 64
MEASURED_IMAGES = 128
_LEAST_TIMED = 4
"""Batches."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some images.

    Attributes:
      images: uint8 [N, size, size, 1].
      truth: int [N], 1 for positive; None where it isn't known.
      name: where they are from, as `validation`.
    """

    images: np.ndarray
    truth: np.ndarray | None
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> "Sample":
        return Sample(
            self.images[rows], None if self.truth is None else self.truth[rows], self.name
        )


def samples(train: Split, held_out: Split, most: int = MEASURED_IMAGES) -> tuple[Sample, Sample]:
    """Images to measure on, at most `most`, and images to calibrate 8-bit arithmetic with, none in both where it can be helped.

    Both are taken evenly from `held_out`; where that is small, the second come from `train`.
    """
    if not len(held_out):
        return _parted(_of(train), most)
    if len(held_out) >= 2 * CALIBRATION_IMAGES:
        return _parted(_of(held_out), most)
    return _evenly(_of(held_out), most), _evenly(_of(train), CALIBRATION_IMAGES)


def verify(
    directory: pathlib.Path, measured: Sample, calibration: Sample, requantize: bool = False
) -> Artifact:
    """Measures every engine that can run here, and records in the local artifact what it finds.

    The network in 8-bit arithmetic is made where there is none yet, or `requantize` asks for another. What cannot run here keeps the
    record that it has.
    """
    described = artifact.load(directory)
    records = dict(described.engines)
    if quantize.available() and (requantize or artifact.INT8_NETWORK not in described.files):
        try:
            quantize.quantize(directory, calibration.images)
        except (
            Exception
        ) as error:  # a network that cannot be quantised is scored in other arithmetic
            logging.warning("no network in int8: %s", _line(error))
        records.pop("openvino/int8", None)
        described = artifact.amend(directory, described, engines=records)
    outputs, record = _measure(directory, described, engines.REFERENCE, measured)
    records[str(engines.REFERENCE)] = {**record, "within_tolerance": True}
    for choice in engines.CHOICES:
        lacking = choice.precision == "int8" and artifact.INT8_NETWORK not in described.files
        if choice != engines.REFERENCE and engines.can_run(choice) and not lacking:
            logging.info("Comparing %s with TensorFlow on %d images.", choice, len(measured))
            records[str(choice)] = _record(directory, described, choice, measured, outputs)
    return artifact.amend(directory, described, engines=records)


def check_maps(
    directory: pathlib.Path, described: Artifact, measured: Sample, masks: np.ndarray | None = None
) -> Artifact:
    """Checks that the maps mean something, and records it in the local artifact and on its card.

    One that has no Keras file any more, which scoring doesn't need, keeps the record that it has.

    Args:
      masks: bool [N, size, size], as `map_checks.check` takes them.
    """
    try:
        network = trained_network.load(str(directory), described)
    except artifact.ArtifactError as error:
        logging.warning("The maps are not checked: %s", error)
        return described
    checked = dataclasses.replace(
        described, map_checks=map_checks.check(network, measured.images, measured.truth, masks)
    )
    (directory / artifact.MODEL_CARD).write_text(
        model_card.render(dataclasses.asdict(checked)), encoding="utf-8"
    )
    return artifact.amend(directory, checked)


def verify_artifact(
    model: str,
    data_dir: str | None,
    images: str | None,
    requantize: bool = False,
    masks: str | None = None,
) -> Artifact:
    """`verify` and `check_maps` for an artifact, local or in a bucket, on prepared data or on a folder of images.

    Args:
      data_dir: where `humerus-prepare` wrote; its validation split is measured on.
      images: in its stead, a local folder of images whose labels needn't be known.
      masks: file that `finding_masks.read` takes, on the images of `data_dir`.

    Raises:
      ConfigError, ArtifactError: no artifact there. DataError: no images, or prepared for another model.
    """
    described = evaluate.load_info(model)
    placed = None
    if masks and not data_dir:
        raise ConfigError("--masks belong to prepared data; give --data_dir too")
    if data_dir:
        evaluate.check_compatible(described, input_pipeline.metadata(data_dir), data_dir)
        train, validation = (
            input_pipeline.load_split(data_dir, name) for name in ("train", "validation")
        )
        measured, calibration = samples(train, validation, most=len(validation) or MEASURED_IMAGES)
        checked = validation if len(validation) else train
        looked_at = Sample(checked.images[:], checked.labels, checked.name)
        placed = finding_masks.place_masks(finding_masks.read(masks), checked) if masks else None
    elif images:
        found = _read(pathlib.Path(images), described.image_size)
        measured, calibration = _parted(found, len(found))
        looked_at = found
    else:
        raise ConfigError(
            "expected --data_dir (prepared data) or --images (a folder) to measure on"
        )
    if not len(measured):
        raise DataError(f"{data_dir or images} holds no image to measure on")
    with _local_copy(model) as directory:
        return check_maps(
            directory, verify(directory, measured, calibration, requantize), looked_at, placed
        )


def table(described: Artifact) -> str:
    """The records as Markdown, fastest first."""
    columns = {
        "probability_mean": ".5f",
        "probability_largest": ".5f",
        "labels_changed": ".1%",
        "auroc_change": "+.4f",
    }
    lines = [
        "| engine | images/s | probability differs by, mean | largest | labels changed | AUROC | maps correlate | verified |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, record in sorted(
        described.engines.items(), key=lambda item: -item[1].get("images_per_second", 0.0)
    ):
        cells = [
            name,
            f"{record['images_per_second']:.1f}" if "images_per_second" in record else "",
        ]
        cells += [
            format(record[key], style) if key in record else "" for key, style in columns.items()
        ]
        cells.append(f"{record['cam_correlation']:.5f}" if "cam_correlation" in record else "")
        verdict = "yes" if record["within_tolerance"] else record.get("error", "no")
        lines.append(
            f"| {' | '.join([*cells, 'the reference' if name == str(engines.REFERENCE) else verdict])} |"
        )
    return "\n".join(lines)


def _record(
    directory: pathlib.Path,
    described: Artifact,
    choice: Choice,
    measured: Sample,
    expected: dict[str, np.ndarray],
) -> dict[str, Any]:
    try:
        outputs, record = _measure(directory, described, choice, measured)
    except Exception as error:  # an engine that fails is one not to choose
        return {"error": _line(error), "within_tolerance": False}
    found = agreement.compare(expected, outputs, described.label, measured.truth)
    return {**record, **found, "within_tolerance": agreement.is_within_tolerance(found)}


def _measure(
    directory: pathlib.Path, described: Artifact, choice: Choice, measured: Sample
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the engine answers on all images, and how fast it is, in batches like a scorer's."""
    engine = engines.load(directory, described, choice, engines.BATCH_SIZE)
    batches, seconds = [], []
    for start in telemetry.beating(
        range(0, max(len(measured), _LEAST_TIMED * engines.BATCH_SIZE), engines.BATCH_SIZE)
    ):
        # Few images are gone through again, for the time alone.
        rows = np.arange(start, start + engines.BATCH_SIZE) % len(measured)
        begin = time.perf_counter()
        batches.append(engine.run(measured.images[rows]))
        seconds.append(time.perf_counter() - begin)
    outputs = {
        name: np.concatenate([batch[name] for batch in batches])[: len(measured)]
        for name in engines.OUTPUTS
    }
    return outputs, {
        "images": len(measured),
        "from": measured.name,
        # The best batch: something else may have run beside the others.
        "images_per_second": round(engines.BATCH_SIZE / min(seconds), 1),
        "device": "GPU" if choice.engine == "tensorflow" and engines.has_gpu() else "CPU",
        "processor": engines.processor(),
    }


def _of(split: Split) -> Sample:
    return Sample(split.images, split.labels, split.name)  # type: ignore[arg-type]


def _evenly(sample: Sample, most: int) -> Sample:
    return sample.select(
        np.unique(np.linspace(0, len(sample) - 1, min(most, len(sample))).astype(int))
    )


def _parted(sample: Sample, most: int) -> tuple[Sample, Sample]:
    """Of enough images some to calibrate with and others to measure on; of few, all to both."""
    if len(sample) < 2 * CALIBRATION_IMAGES:
        return _evenly(sample, most), _evenly(sample, CALIBRATION_IMAGES)
    calibration = np.linspace(0, len(sample) - 1, CALIBRATION_IMAGES).astype(int)
    return _evenly(
        sample.select(np.setdiff1d(np.arange(len(sample)), calibration)), most
    ), sample.select(calibration)


def _read(folder: pathlib.Path, size: int) -> Sample:
    """Every image below `folder` that can be read."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder and holds no image to measure on; name the one with the images"
        )
    pixels = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pixels.append(radiograph.load(path.read_bytes(), size))
        except radiograph.RadiographError as error:
            logging.warning("%s is left out: %s", path, error)
    return Sample(np.array(pixels, np.uint8).reshape(-1, size, size, 1), None, "images")


@contextlib.contextmanager
def _local_copy(model: str) -> Iterator[pathlib.Path]:
    """The artifact where it is local; else a copy, of which what changed goes back, `model.json` last."""
    if not storage.is_remote(model):
        yield pathlib.Path(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        source = model.rstrip("/")
        before = evaluate.load_info(model).files
        storage.download(source, [*before, artifact.MODEL_JSON], directory)
        yield directory
        after = artifact.load(directory).files
        changed = [name for name in after if after[name] != before.get(name)]
        storage.upload(directory, [*changed, artifact.MODEL_JSON], source)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
