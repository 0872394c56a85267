"""Measure how far each engine agrees with the exported model, and record it in the artifact.

A scorer chooses its engine by these records.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
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
from trainer.evaluation.cases import Cases, spread_rows
from trainer.network import trained_network
from trainer.program import text_table
from trainer.program.progress import show_each
from trainer.publishing import model_card, quantize

CALIBRATION_IMAGES = 64
MEASURED_IMAGES = 512
_FEWEST_TIMED_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images to measure on.

    Attributes:
      images: uint8 [N, size, size, 1].
      known: labels and patients of the images; None where labels aren't known.
      name: where they come from, such as `validation`.
    """

    images: np.ndarray
    known: Cases | None
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> "Sample":
        """Return the images at `rows`, int [M]."""
        known = None if self.known is None else self.known.take(rows)
        return Sample(self.images[rows], known, self.name)

    @property
    def truth(self) -> np.ndarray | None:
        """Labels, int [N], 1 for positive; None where they aren't known."""
        return None if self.known is None else self.known.label


def choose_samples(
    train: Split, held_out: Split, most: int = MEASURED_IMAGES
) -> tuple[Sample, Sample]:
    """Choose images to measure on, at most `most`, and images to calibrate 8-bit arithmetic with.

    Both are spread evenly over `held_out`; where that is small, the second come from `train`. Only
    where nothing was held out and `train` is small too are some images in both.
    """
    if not len(held_out):
        return _divide(_to_sample(train), most)
    if len(held_out) >= 2 * CALIBRATION_IMAGES:
        return _divide(_to_sample(held_out), most)
    return _spread(_to_sample(held_out), most), _spread(_to_sample(train), CALIBRATION_IMAGES)


def verify(
    directory: pathlib.Path, measured: Sample, calibration: Sample, requantize: bool = False
) -> Artifact:
    """Measure every engine that can run here, and record the results in the local artifact.

    The network in 8-bit arithmetic is made where there is none yet, and with `requantize` it is
    made again. Engines that cannot run here keep their records.
    """
    described = artifact.load(directory)
    records: dict[str, Any] = dict(described.engines)
    if quantize.is_available() and (requantize or artifact.INT8_NETWORK not in described.files):
        try:
            quantize.quantize(directory, calibration.images)
        except Exception as error:  # it can still be scored in other arithmetic
            logging.warning("There is no network in int8: %s", _format_line(error))
        records.pop("openvino/int8", None)
        described = artifact.amend(directory, described, engines=records)
    outputs, record = _measure(directory, described, engines.REFERENCE, measured)
    records[str(engines.REFERENCE)] = {**record, "within_tolerance": True}
    for choice in engines.CHOICES:
        is_missing = choice.precision == "int8" and artifact.INT8_NETWORK not in described.files
        if choice != engines.REFERENCE and engines.can_run(choice) and not is_missing:
            logging.info("Comparing %s with TensorFlow on %d images.", choice, len(measured))
            records[str(choice)] = _compare(directory, described, choice, measured, outputs)
    return _amend_with_card(directory, described, engines=records)


def check_maps(
    directory: pathlib.Path, described: Artifact, measured: Sample, masks: np.ndarray | None = None
) -> Artifact:
    """Check that the maps mean something, and record it in the local artifact and its card.

    An artifact whose Keras file was removed, which scoring doesn't need, keeps its record.

    Args:
      masks: bool [N, size, size], see `map_checks.check`.
    """
    try:
        network = trained_network.load(str(directory), described)
    except artifact.ArtifactError as error:
        logging.warning("The maps are not checked: %s", error)
        return described
    found: dict[str, Any] = map_checks.check(network, measured.images, measured.truth, masks)
    return _amend_with_card(directory, described, map_checks=found)


def _amend_with_card(directory: pathlib.Path, described: Artifact, **fields: Any) -> Artifact:
    """Replace fields of the artifact, in `model.json` and in the model card."""
    amended = dataclasses.replace(described, **fields)
    (directory / artifact.MODEL_CARD).write_text(
        model_card.render(dataclasses.asdict(amended)), encoding="utf-8"
    )
    return artifact.amend(directory, amended)


def verify_artifact(
    model: str,
    data_dir: str | None,
    images: str | None,
    requantize: bool = False,
    masks: str | None = None,
) -> Artifact:
    """Run `verify` and `check_maps` on an artifact, local or in a bucket.

    Args:
      data_dir: folder that `humerus-prepare` wrote; its validation split is measured on.
      images: instead of that, a local folder of images whose labels needn't be known.
      masks: a file for `finding_masks.read`, on the images of `data_dir`.

    Raises:
      ConfigError, ArtifactError: there is no artifact.
      DataError: there are no images, or they were prepared for another model.
    """
    described = evaluate.load_info(model)
    if masks and not data_dir:
        raise ConfigError("--masks belong to prepared data; set --data_dir too")
    if data_dir:
        chosen = _load_prepared(described, data_dir, masks)
    elif images:
        found = _read_folder(pathlib.Path(images), described.image_size)
        chosen = _Images(*_divide(found, len(found)), for_maps=found)
    else:
        raise ConfigError(
            "expected --data_dir (prepared data) or --images (a folder) to measure on"
        )
    if not len(chosen.measured):
        raise DataError(f"{data_dir or images} holds no image to measure on")
    with _open_artifact(model) as directory:
        verified = verify(directory, chosen.measured, chosen.calibration, requantize)
        return check_maps(directory, verified, chosen.for_maps, chosen.masks)


@dataclasses.dataclass(frozen=True)
class _Images:
    """The images that an artifact is verified on.

    Attributes:
      measured: images that the engines are compared on.
      calibration: images that 8-bit arithmetic is calibrated with.
      for_maps: images that the maps are checked on.
      masks: bool [N, size, size], the findings in `for_maps`, where they are known.
    """

    measured: Sample
    calibration: Sample
    for_maps: Sample
    masks: np.ndarray | None = None


def _load_prepared(described: Artifact, data_dir: str, masks: str | None) -> _Images:
    """Load the images of prepared data, and the masks of a file."""
    evaluate.check_compatible(described, input_pipeline.read_dataset_info(data_dir), data_dir)
    train, validation = (
        input_pipeline.load_split(data_dir, name) for name in ("train", "validation")
    )
    most = len(validation) or MEASURED_IMAGES
    measured, calibration = choose_samples(train, validation, most)
    checked = validation if len(validation) else train
    placed = finding_masks.place_masks(finding_masks.read(masks), checked) if masks else None
    for_maps = _to_sample(checked)
    return _Images(measured, calibration, for_maps, placed)


def format_table(described: Artifact) -> str:
    """Format the records as a table for a terminal, fastest first."""
    columns = {
        "probability_mean": ".5f",
        "probability_largest": ".5f",
        "labels_changed": ".1%",
    }
    header = (
        "engine",
        "images/s",
        "differs, mean",
        "largest",
        "labels changed",
        "AUROC",
        "accuracy",
        "maps correlate",
        "verified",
    )
    rows = []
    records: dict[str, Any] = dict(described.engines)
    for name, record in sorted(
        records.items(), key=lambda item: -item[1].get("images_per_second", 0.0)
    ):
        cells = [
            name,
            f"{record['images_per_second']:.1f}" if "images_per_second" in record else "",
        ]
        cells += [
            format(record[key], style) if key in record else "" for key, style in columns.items()
        ]
        cells += [_format_change(record.get(name)) for name in ("auroc", "accuracy")]
        cells.append(f"{record['cam_correlation']:.5f}" if "cam_correlation" in record else "")
        reason = record.get("verdict", record.get("error", ""))
        accepted = "yes" if record.get("within_tolerance") else "no"
        verdict = f"{accepted}{reason and f': {reason}'}"
        is_reference = name == str(engines.REFERENCE)
        rows.append([*cells, "the reference" if is_reference else verdict])
    return text_table.align(header, rows)


def _format_change(change: Mapping[str, float | None] | None) -> str:
    """Format a paired difference with its interval; nothing where labels weren't known."""
    if change is None:
        return ""
    if change["low"] is None:
        return f"{change['difference']:+.4f}"
    return f"{change['difference']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})"


def _compare(
    directory: pathlib.Path,
    described: Artifact,
    choice: Choice,
    measured: Sample,
    expected: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Return the record of one engine, compared with the outputs that are expected."""
    try:
        outputs, record = _measure(directory, described, choice, measured)
    except Exception as error:  # no scorer may choose an engine that fails
        return {"error": _format_line(error), "within_tolerance": False}
    found = agreement.compare(
        expected, outputs, described.label, described.threshold, measured.known
    )
    return {**record, **found}


def _measure(
    directory: pathlib.Path, described: Artifact, choice: Choice, measured: Sample
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the outputs of an engine on all images, and its speed in batches like a scorer's."""
    engine = engines.load(directory, described, choice, engines.BATCH_SIZE)
    batches, seconds = [], []
    most = max(len(measured), _FEWEST_TIMED_BATCHES * engines.BATCH_SIZE)
    for start in show_each(range(0, most, engines.BATCH_SIZE), f"measuring {choice}"):
        # A small sample is run several times, only to measure the speed.
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


def _to_sample(split: Split) -> Sample:
    known = evaluate.make_cases(split, np.zeros(len(split)))
    return Sample(split.images[:], known, split.name)


def _spread(sample: Sample, most: int) -> Sample:
    return sample.select(spread_rows(len(sample), most))


def _divide(sample: Sample, most: int) -> tuple[Sample, Sample]:
    """Divide images into some to measure on and some to calibrate with; few images serve both."""
    if len(sample) < 2 * CALIBRATION_IMAGES:
        return _spread(sample, most), _spread(sample, CALIBRATION_IMAGES)
    calibration = spread_rows(len(sample), CALIBRATION_IMAGES)
    others = np.setdiff1d(np.arange(len(sample)), calibration)
    return _spread(sample.select(others), most), sample.select(calibration)


def _read_folder(folder: pathlib.Path, size: int) -> Sample:
    """Read every image below `folder` that can be read, and warn of the others."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder and holds no image to measure on; "
            "name the folder of the images"
        )
    pixels = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pixels.append(radiograph.load(path.read_bytes(), size))
        except radiograph.RadiographError as error:
            logging.warning("%s is left out: %s", path, error)
    return Sample(np.array(pixels, np.uint8).reshape(-1, size, size, 1), None, "images")


@contextlib.contextmanager
def _open_artifact(model: str) -> Iterator[pathlib.Path]:
    """Yield the folder of a local artifact, or of a copy whose changes are uploaded afterwards."""
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


def _format_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
