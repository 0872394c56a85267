"""Measure how far each engine agrees with the exported model, and record it in the artifact.

A scorer chooses its engine by these records.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from trainer import artifact, machine, storage
from trainer.artifact import OUTPUTS, Artifact
from trainer.errors import ConfigError, DataError
from trainer.evaluation import agreement, map_checks
from trainer.inference import artifact_copy, engines, logit_alignment
from trainer.inference.engines import Choice
from trainer.network import trained_network
from trainer.program import text_table
from trainer.program.progress import show_each
from trainer.publishing import model_card, onnx_export, quantize, verification_images
from trainer.publishing.verification_images import Sample

_FEWEST_TIMED_BATCHES = 4


def verify(
    directory: pathlib.Path, measured: Sample, calibration: Sample, requantize: bool = False
) -> Artifact:
    """Measure every engine that can run here, and record the results in the local artifact.

    The networks in 8-bit arithmetic and in ONNX are made where there is none yet, and with
    `requantize` the first is made again. Engines that cannot run here keep their records.
    """
    described = artifact.load(directory)
    records: dict[str, Any] = dict(described.engines)
    lacks_int8 = artifact.INT8_NETWORK not in described.files
    if machine.has_packages("openvino", "nncf") and (requantize or lacks_int8):
        records.pop("openvino/int8", None)
        described = _add_network(
            directory,
            dataclasses.replace(described, engines=records),
            "int8",
            lambda folder: quantize.quantize(directory, calibration.images, folder),
        )
    lacks_onnx = artifact.ONNX_NETWORK not in described.files
    if machine.has_packages("tf2onnx", "onnxruntime") and lacks_onnx:
        described = _add_network(
            directory, described, "ONNX", lambda folder: onnx_export.export(directory, folder)
        )
    bare = dataclasses.replace(described, engines={})  # without alignments of an earlier time
    *expected, record = _measure(directory, bare, engines.REFERENCE, measured, calibration)
    records[str(engines.REFERENCE)] = {**record, "within_tolerance": True}
    for choice in engines.CHOICES:
        file = engines.NETWORK_FILES.get(str(choice))
        is_missing = file is not None and file not in described.files
        if choice != engines.REFERENCE and engines.can_run(choice) and not is_missing:
            logging.info("Comparing %s with TensorFlow on %d images.", choice, len(measured))
            records[str(choice)] = _compare(
                directory, bare, choice, measured, calibration, *expected
            )
    return _update_cards(directory, described, engines=records)


def _add_network(
    directory: pathlib.Path, described: Artifact, name: str, make: Callable[[pathlib.Path], None]
) -> Artifact:
    """Let `make` write a network into a folder, and move it into the artifact.

    Where that fails, the artifact stays as it was, since other engines can score it.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=".") as folder:
        try:
            make(pathlib.Path(folder))
        except Exception as error:
            logging.warning("No network in %s was made: %s", name, _format_line(error))
            return described
        with storage.explain_write_error(str(directory)):
            return artifact.replace_files(directory, described, pathlib.Path(folder))


def check_maps(
    directory: pathlib.Path, described: Artifact, measured: Sample, masks: np.ndarray | None = None
) -> Artifact:
    """Check whether the maps are faithful, and record it in the local artifact and its card.

    An artifact whose Keras file was removed, which scoring doesn't need, keeps its record.

    Args:
      masks: bool [N, size, size], see `map_checks.check`.
    """
    try:
        network = trained_network.load(directory, described)
    except artifact.ArtifactError as error:
        logging.warning("The maps are not checked: %s", error)
        return described
    found: dict[str, Any] = map_checks.check(network, measured.images, measured.truth, masks)
    return _update_cards(directory, described, map_checks=found)


def _update_cards(directory: pathlib.Path, described: Artifact, **fields: Any) -> Artifact:
    """Replace fields, write the model cards anew, and return the artifact with their checksums."""
    with storage.explain_write_error(str(directory)):
        amended = artifact.amend(directory, described, **fields)
        files = model_card.write(directory, dataclasses.asdict(amended), amended.files)
        return artifact.amend(directory, dataclasses.replace(amended, files=files))


def verify_artifact(
    model: str,
    data_dir: str | None,
    images: str | None,
    requantize: bool = False,
    masks: str | None = None,
) -> Artifact:
    """Run `verify` and `check_maps` on an artifact, local or in a bucket.

    Args:
      data_dir: folder that `humerus-prepare` wrote; its validation and test splits are measured on.
      images: instead of that, a local folder of images whose labels needn't be known.
      masks: a file for `finding_masks.read`, on the images of `data_dir`.

    Raises:
      ConfigError, ArtifactError: there is no artifact.
      DataError: there are no images, or they were prepared for another model.
    """
    if masks and not data_dir:
        raise ConfigError("--masks needs --data_dir: it marks findings in prepared images")
    with _open_for_change(model) as (directory, described):
        if data_dir:
            chosen = verification_images.load_prepared(described, data_dir, masks)
        elif images:
            chosen = verification_images.load_folder(pathlib.Path(images), described.image_size)
        else:
            raise ConfigError(
                "there is nothing to measure on; name prepared TFRecords (--data_dir) or a folder"
                " of images (--images)"
            )
        if not len(chosen.measured):
            raise DataError(
                f"{data_dir or images} holds no image to measure on; name a folder with radiographs"
                " (--images), or data that humerus-prepare wrote (--data_dir)"
            )
        verified = verify(directory, chosen.measured, chosen.calibration, requantize)
        return check_maps(directory, verified, chosen.for_maps, chosen.masks)


def format_table(described: Artifact) -> str:
    """Format the records as a table for a terminal, fastest first.

    Beside the speed it has the mean difference of the probability from the reference's, the share
    of labels that differ, and what AUROC and accuracy gain; `model.json` has the intervals too.
    """
    header = ("engine", "images/s", "differs", "labels changed", "AUROC", "accuracy", "verified")
    rows = []
    records: dict[str, Any] = dict(described.engines)
    for name, record in sorted(
        records.items(), key=lambda item: -item[1].get("images_per_second", 0.0)
    ):
        gains = {key: (record.get(key) or {}).get("difference") for key in ("auroc", "accuracy")}
        cells = [
            name,
            _format(record.get("images_per_second"), ",.0f"),
            _format(record.get("probability_mean"), ".4f"),
            _format(record.get("labels_changed"), ".1%"),
            *(_format(gain, "+.4f") for gain in gains.values()),
        ]
        reason = record.get("verdict", record.get("error", ""))
        accepted = "yes" if record.get("within_tolerance") else "no"
        verdict = f"{accepted}{reason and f': {reason}'}"
        is_reference = name == str(engines.REFERENCE)
        rows.append([*cells, "the reference" if is_reference else verdict])
    return text_table.align(header, rows)


def _format(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _compare(
    directory: pathlib.Path,
    described: Artifact,
    choice: Choice,
    measured: Sample,
    calibration: Sample,
    expected: dict[str, np.ndarray],
    expected_fitted_on: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Return the record of one engine, aligned to the outputs of the reference, and compared.

    Args:
      expected, expected_fitted_on: those outputs, as `_measure` returns them.
    """
    try:
        outputs, fitted_on, record = _measure(directory, described, choice, measured, calibration)
    except Exception as error:  # no scorer may choose an engine that fails
        return {"error": _format_line(error), "within_tolerance": False}
    if choice.precision != engines.REFERENCE.precision:
        line = logit_alignment.fit(fitted_on["logit"], expected_fitted_on["logit"])
        record["alignment"] = dataclasses.asdict(line)
        outputs = line.apply(outputs, described.scaling)
    found = agreement.compare(
        expected, outputs, described.label, described.threshold, measured.known
    )
    return {**record, **found}


def _measure(
    directory: pathlib.Path,
    described: Artifact,
    choice: Choice,
    measured: Sample,
    calibration: Sample,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Return the outputs of an engine on the images of both samples, and its speed in batches like
    a scorer's.
    """
    engine = engines.load(directory, described, choice, engines.BATCH_SIZE)
    fitted_on, _ = _run(engine, calibration, 0, f"aligning {choice}")
    least = _FEWEST_TIMED_BATCHES * engines.BATCH_SIZE
    outputs, seconds = _run(engine, measured, least, f"measuring {choice}")
    return (
        outputs,
        fitted_on,
        {
            "images": len(measured),
            "from": measured.name,
            # The best batch: something else may have run beside the others.
            "images_per_second": round(engines.BATCH_SIZE / min(seconds), 1),
            "device": engines.device(choice),
            "processor": machine.processor(),
        },
    )


def _run(
    engine: engines.Engine, sample: Sample, least: int, shown: str
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Return the outputs for all images, and the seconds that each batch took.

    Args:
      least: number of images to run at least; a small sample is run several times.
      shown: what the progress says.
    """
    batches, seconds = [], []
    numbers = range(0, max(len(sample), least), engines.BATCH_SIZE)
    for start in show_each(numbers, shown):
        rows = np.arange(start, start + engines.BATCH_SIZE) % len(sample)
        begin = time.perf_counter()
        batches.append(engine.run(sample.images[rows]))
        seconds.append(time.perf_counter() - begin)
    outputs = {
        name: np.concatenate([batch[name] for batch in batches])[: len(sample)] for name in OUTPUTS
    }
    return outputs, seconds


@contextlib.contextmanager
def _open_for_change(model: str) -> Iterator[tuple[pathlib.Path, Artifact]]:
    """Yield the folder and the content of a local artifact, or of a copy of a remote one.

    The changes of a copy are uploaded afterwards.
    """
    if not storage.is_remote(model):
        yield pathlib.Path(model), artifact.load(model)
        return
    model = model.rstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        described = artifact_copy.download_all(model, directory)
        yield directory, described
        after = artifact.load(directory).files
        changed = [name for name in after if after[name] != described.files.get(name)]
        storage.upload(directory, [*changed, artifact.MODEL_JSON], model)


def _format_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
