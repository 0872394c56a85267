"""Evaluate and compare exported models on splits of prepared data, with confidence intervals."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import radiograph
from trainer.artifact import Artifact
from trainer.dataset import labelled_source, prepared_split
from trainer.dataset.dataset_info import DatasetInfo, is_same_preprocessing
from trainer.dataset.prepared_split import Split
from trainer.errors import DataError
from trainer.evaluation import metrics, predictions
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases
from trainer.inference import artifact_copy
from trainer.model_json.scaling import IDENTITY, Scaling
from trainer.program.progress import show_each


def make_cases(
    split: Split,
    logit: np.ndarray,
    scaling: Scaling = IDENTITY,
) -> Cases:
    """Combine a split and its logits, float [N], to cases with the probability of `scaling`."""
    return Cases(
        probability=scaling.compute_probability(logit),
        logit=logit,
        label=split.labels,
        study_id=split.study_id,
        patient_id=split.patient_id,
        path=split.path,
    )


def measure(split: Split, logit: np.ndarray, point: OperatingPoint) -> dict[str, Any]:
    """Compute metrics per image and per study, as in `metrics.json`; {} if the split is empty."""
    if not len(split):
        return {}
    return metrics.evaluate(
        make_cases(split, logit, point.scaling),
        point.threshold,
        point.uncertain_band,
        study_scaling=point.effective_study_scaling,
    )


def evaluate(
    model: str, data_dir: str, split: str = "test", predictions_file: str | None = None
) -> dict[str, Any]:
    """Evaluate an exported artifact on a split of prepared data.

    Args:
      model: artifact directory, local or in a bucket.
      data_dir: the data set that `humerus-prepare` wrote.
      split: `train`, `validation` or `test`.
      predictions_file: CSV file for the scores of each image, see `write_predictions`.

    Returns:
      What `metrics.evaluate` returns, and `model_id`, `split`, `warnings` (why the metrics may be
      optimistic, one sentence each) and `slices` (the metrics by each attribute of the source).

    Raises:
      ArtifactError: the artifact is damaged.
      ConfigError: there is no artifact.
      DataError: the split is empty, or the model needs another image size or preprocessing.
    """
    loaded = load_split(data_dir, split)
    info, scored = score(model, data_dir, loaded)
    caveats = list_caveats(model, info, data_dir, split)
    return _describe(info, loaded, scored, caveats, predictions_file)


def evaluate_source(
    model: str,
    source: str,
    layout: str,
    body_parts: Sequence[str],
    split: str | None = None,
    predictions_file: str | None = None,
) -> dict[str, Any]:
    """Evaluate an exported artifact on the labelled images of a folder or manifest.

    Args:
      model: artifact directory, local or in a bucket.
      source, layout, body_parts: as `sources.list_source` takes them.
      split: the images that the source puts into this split; None for all images.
      predictions_file: CSV file for the scores of each image, see `write_predictions`.

    Returns:
      What `evaluate` returns. `warnings` say which files were refused. Whether the model was made
      from these images is not known.

    Raises:
      ArtifactError: the artifact is damaged.
      ConfigError: there is no artifact, or an option is wrong.
      DataError: the source is wrong, or the model needs another preprocessing.
    """
    folder, info = artifact_copy.open_artifact(model)
    if not is_same_preprocessing(info.preprocessing, radiograph.PREPROCESSING):
        raise DataError(
            f"{model} was made with another version of the preprocessing than this program's; "
            "train it again"
        )
    loaded, warnings = labelled_source.load(source, layout, info.image_size, body_parts, split)
    return _describe(info, loaded, _score_images(folder, info, loaded), warnings, predictions_file)


def _describe(
    info: Artifact,
    loaded: Split,
    scored: Cases,
    warnings: list[str],
    predictions_file: str | None,
) -> dict[str, Any]:
    """Return what `evaluate` returns, and write the predictions if a file is named."""
    if predictions_file:
        write_predictions(predictions_file, scored, loaded.name, info.threshold)
    return {
        "model_id": info.model_id,
        "split": loaded.name,
        "warnings": warnings,
        **metrics.evaluate(
            scored, info.threshold, info.uncertain_band, study_scaling=info.study_scaling
        ),
        "slices": evaluate_by_attribute(loaded, scored, info.threshold),
    }


def compare(
    model: str,
    baseline: str,
    data_dir: str,
    split: str = "test",
    baseline_data_dir: str | None = None,
    predictions_file: str | None = None,
) -> dict[str, Any]:
    """Compare two models, each at its own threshold, on the same images of prepared data.

    Args:
      model, baseline: artifact directories, local or in a bucket.
      data_dir: the data set that `humerus-prepare` wrote.
      split: `train`, `validation` or `test`.
      baseline_data_dir: the same images prepared for the baseline, if it takes another image size.
      predictions_file: CSV file for the scores of each image by `model`, see `write_predictions`.

    Returns:
      What `metrics.compare` returns (differences are `model` minus `baseline`), and `model_id`,
      `baseline_id`, `split`, and `warnings` as `evaluate` returns them.

    Raises:
      ArtifactError, DataError: as `evaluate` does, for either model.
    """
    baseline_data_dir = baseline_data_dir or data_dir
    info, scored = score(model, data_dir, load_split(data_dir, split))
    other, other_scored = score(
        baseline,
        baseline_data_dir,
        load_split(baseline_data_dir, split),
        "the baseline (whose --baseline_data_dir may be another)",
    )
    if predictions_file:
        write_predictions(predictions_file, scored, split, info.threshold)
    return {
        "model_id": info.model_id,
        "baseline_id": other.model_id,
        "split": split,
        "warnings": [
            *list_caveats(model, info, data_dir, split),
            *list_caveats(baseline, other, baseline_data_dir, split),
        ],
        **metrics.compare(
            other_scored,
            scored,
            other.threshold,
            info.threshold,
            scalings=(other.study_scaling, info.study_scaling),
        ),
    }


def write_predictions(path: str, scored: Cases, split: str, threshold: float) -> None:
    """Write the scores of a split, one row per image, as `predictions.write_csv` does.

    The further columns are `split`, and `predicted`, 1 where the calibrated probability is
    `threshold` or more.
    """
    called = (scored.probability >= threshold).astype(int)
    predictions.write_csv(path, scored, {"split": np.full(len(scored), split), "predicted": called})


def list_caveats(model: str, info: Artifact, data_dir: str, split: str) -> list[str]:
    """List why the metrics are optimistic on a split that the model was trained or calibrated on.

    Data sets are compared by fingerprint: it isn't known which other images a model has seen.
    """
    if info.dataset.get("fingerprint") != prepared_split.read_dataset_info(data_dir).fingerprint:
        return [
            f"{model} was trained on other data than {data_dir}, or on a former preparation of"
            " them: if images of its training are among these, their metrics are optimistic"
        ]
    if split == "test":
        return []
    if split == "train" or "out_of_fold" in info.metrics:
        return [
            f"{model} was trained on images of the {split} split: its metrics there say nothing "
            "about new patients"
        ]
    return [
        f"the threshold of {model} was chosen on the validation split: its metrics there are "
        "optimistic"
    ]


def load_split(data_dir: str, split: str) -> Split:
    """Load a split of prepared data.

    Raises:
      DataError: it is empty.
    """
    loaded = prepared_split.load_split(data_dir, split)
    if not len(loaded):
        raise DataError(
            f"{data_dir}: the split {split!r} is empty; name another --split, or prepare the data"
            " with images for it"
        )
    return loaded


def score(
    model: str, data_dir: str, loaded: Split, role: str = "the model"
) -> tuple[Artifact, Cases]:
    """Score a split with an artifact; return its description and the calibrated cases."""
    folder, info = artifact_copy.open_artifact(model)
    check_compatible(info, prepared_split.read_dataset_info(data_dir), data_dir, role)
    return info, _score_images(folder, info, loaded)


def _score_images(folder: pathlib.Path, info: Artifact, loaded: Split) -> Cases:
    """Score images with the SavedModel of an artifact; return the calibrated cases."""
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    starts = show_each(range(0, len(loaded), 32), "scoring")
    logit = np.concatenate(
        [serve(image=tf.constant(loaded.images[i : i + 32]))["logit"].numpy() for i in starts]
    )
    return make_cases(loaded, logit, info.scaling)


def evaluate_by_attribute(split: Split, scored: Cases, threshold: float) -> dict[str, Any]:
    """Compute the metrics in each group of every attribute that the source has for some image."""
    columns = sorted(set().union(*split.attributes))
    return metrics.evaluate_slices(
        scored,
        {column: [row.get(column, "") for row in split.attributes] for column in columns},
        threshold,
    )


def check_compatible(
    info: Artifact, dataset: DatasetInfo, data_dir: str, role: str = "the model"
) -> None:
    """Check that data were prepared as the model needs them.

    Messages name the model by its `role`.

    Raises:
      DataError: the image size or the preprocessing is another.
    """
    if dataset.image_size != info.image_size:
        raise DataError(
            f"{data_dir} holds images of {dataset.image_size} px, and {role} takes "
            f"{info.image_size}; prepare them with --image_size={info.image_size}"
        )
    if not is_same_preprocessing(dataset.preprocessing, info.preprocessing):
        raise DataError(
            f"{data_dir} was prepared by another version of the preprocessing than the model's; "
            "prepare it again"
        )
