"""Combine finished artifacts, of the same or of different backbones, to one that averages them.

The mean of the calibrated logits of several networks is better than each of them, the more so the
more they differ (Lakshminarayanan et al. 2017, arXiv:1612.01474). Operating point and calibration
are fitted anew on the validation split.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from trainer.artifact import Artifact
from trainer.dataset import prepared_split
from trainer.dataset.prepared_split import Split
from trainer.errors import ConfigError, DataError
from trainer.evaluation import calibration, evaluate, fit_weights, metric_tables, metrics
from trainer.evaluation.calibration import OperatingPoint
from trainer.files import urls
from trainer.inference import artifact_copy
from trainer.network import trained_network
from trainer.network.flips import PASSES, Flips
from trainer.network.serving import Member, Network, serving_function
from trainer.program import text_table
from trainer.publishing import artifact_folder, export
from trainer.publishing.trained import EvaluationResult, ScoredSplit, TrainingResult

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class _Part:
    """An artifact that is combined.

    Attributes:
      path: where it lies.
      network: all its members, each with its own temperature.
    """

    path: str
    info: Artifact
    network: Network

    def score(self, split: Split, flips: Flips) -> np.ndarray:
        """Return the logits of the images, float32 [N], before calibration."""
        serve = serving_function(dataclasses.replace(self.network, flips=flips))
        logits = [
            serve(tf.constant(split.images[start : start + _BATCH]))["logit"].numpy()
            for start in range(0, len(split), _BATCH)
        ]
        return np.concatenate([np.zeros(0, np.float32), *logits])


def combine(
    models: Sequence[str],
    data_dir: str,
    output: str,
    threshold_rule: str = calibration.DEFAULT_RULE,
    verify_engines: bool = True,
) -> dict[str, Any]:
    """Write an artifact to `output` that averages the logits and maps of the artifacts `models`.

    Args:
      models: two or more artifacts, local or in a bucket, that take images of the same size.
      data_dir: the data that `humerus-prepare` wrote for them. Weights, calibration and threshold
        are fitted on the validation split, and all is measured on the test split.
      threshold_rule: see `calibration.check_rule`.
      verify_engines: measure the engines that score faster than TensorFlow.

    Returns:
      `model_id`; `parts`: `path`, `model_id` and `weight` of each artifact, and `test`, the
      combination minus it as `metrics.compare` returns it; and the metrics of `validation` and
      `test` of the combination, as in `metrics.json`.

    Raises:
      ConfigError: the same artifact twice, or `output` is one of them.
      ArtifactError: an artifact is damaged.
      DataError: an artifact needs other images than `data_dir` holds, or has seen the validation
        split in training.
    """
    calibration.check_rule(threshold_rule)
    _check_paths(models, output)
    dataset = prepared_split.read_dataset_info(data_dir)
    opened = [artifact_copy.open_artifact(model) for model in models]
    infos = [info for _, info in opened]
    for path, info in zip(models, infos, strict=True):
        evaluate.check_compatible(info, dataset, data_dir, path)
        _check_unseen(info, path, dataset.fingerprint)
    _check_different(models, infos)
    parts = [
        _Part(path, info, trained_network.load(folder, info))
        for path, (folder, info) in zip(models, opened, strict=True)
    ]
    train, validation, test = (
        prepared_split.load_split(data_dir, name) for name in ("train", "validation", "test")
    )
    flips = max((part.network.flips for part in parts), key=list(PASSES).index)
    logits, test_logits = (
        np.stack([part.score(split, flips) for part in parts]) for split in (validation, test)
    )
    temperatures = np.array([[part.info.temperature] for part in parts])
    weights = fit_weights.choose(logits / temperatures, evaluate.make_cases(validation, logits[0]))
    held_out, tested = (
        ScoredSplit(split, weights @ (of_parts / temperatures))
        for split, of_parts in ((validation, logits), (test, test_logits))
    )
    described = [
        {"model_id": part.info.model_id, "weight": float(weight)}
        for part, weight in zip(parts, weights, strict=True)
    ]
    trained = TrainingResult(
        Network(_weigh_members(parts, weights), flips), train, held_out, parts=described
    )
    point = calibration.fit(held_out.compute_cases(), threshold_rule)
    measured = {
        name: evaluate.measure(scored.split, scored.logit, point)
        for name, scored in (("validation", held_out), ("test", tested))
    }
    sealed = export.export(
        trained, EvaluationResult(point, measured), dataset, output, test, verify_engines
    )
    rows = []
    for part, row, logit in zip(parts, described, test_logits, strict=True):
        # Alone, a part scores only the flipped copies that it was made for.
        as_it_is = part.network.flips == flips
        alone = logit if as_it_is else part.score(test, part.network.flips)
        compared = _compare_alone(part, alone, tested, point)
        rows.append({"path": part.path, **row, "test": compared})
    return {"model_id": sealed.model_id, "parts": rows, **measured}


def format_table(result: dict[str, Any]) -> str:
    """Format what `combine` returned as lines for a terminal."""
    weights = [(part["model_id"], f"{part['weight']:.3f}") for part in result["parts"]]
    lines = [text_table.align(("model", "weight"), weights)]
    if result["test"]:
        compared = [
            (part["model_id"], *metric_tables.list_difference(part["test"]["image"]["auroc"]))
            for part in result["parts"]
        ]
        lines += [
            "\nAUROC per image of the test split:",
            text_table.align(("model", *metric_tables.DIFFERENCE_COLUMNS), compared),
        ]
    shown = [(name, result[name]) for name in ("validation", "test") if result[name]]
    tables = [f"\n{name}:\n{metric_tables.format_table(found)}" for name, found in shown]
    return "\n".join([*lines, *tables])


def _check_paths(models: Sequence[str], output: str) -> None:
    def resolve(path: str) -> str:
        return path.rstrip("/") if urls.is_remote(path) else os.path.realpath(path)

    for model in map(resolve, models):
        if f"{model}/".startswith(f"{resolve(output)}/"):
            raise ConfigError(
                f"--output={output} is or holds one of the artifacts that are combined; name"
                " another folder"
            )
    artifact_folder.check_replaceable(output)


def _check_different(models: Sequence[str], infos: Sequence[Artifact]) -> None:
    """Refuse a model that is named twice: it would count double."""
    first: dict[str, str] = {}
    for path, info in zip(models, infos, strict=True):
        if info.model_id in first:
            raise ConfigError(
                f"{first[info.model_id]} and {path} are the same model ({info.model_id}); name "
                "each once"
            )
        first[info.model_id] = path


def _check_unseen(info: Artifact, path: str, fingerprint: str) -> None:
    """Refuse an artifact that was trained on the validation split; warn where that isn't known."""
    if info.dataset.get("fingerprint") != fingerprint:
        logging.warning(
            "%s was trained on other data than --data_dir; where its training images are in the"
            " validation split here, weights, calibration and threshold are optimistic.",
            path,
        )
    elif "out_of_fold" in info.metrics:
        raise DataError(
            f"{path} was cross-validated: its networks have seen the validation split, on which a "
            "combination is calibrated; combine artifacts that were trained without --folds"
        )


def _weigh_members(parts: Sequence[_Part], weights: np.ndarray) -> tuple[Member, ...]:
    """Return the members of all parts with a weight.

    Their temperatures are such that the plain mean over all of them is the weighted mean over the
    parts.
    """
    kept = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight > 0]
    for part, weight in zip(parts, weights, strict=True):
        if weight == 0:
            logging.warning("%s gains nothing beside the others and is omitted.", part.path)
    total = sum(len(part.network.members) for part, _ in kept)
    return tuple(
        dataclasses.replace(
            member,
            temperature=float(
                member.temperature
                * part.info.temperature
                * len(part.network.members)
                / (total * weight)
            ),
        )
        for part, weight in kept
        for member in part.network.members
    )


def _compare_alone(
    part: _Part, logit: np.ndarray, combined: ScoredSplit, point: OperatingPoint
) -> dict[str, Any]:
    """Compare the combination with one of its parts, paired by image; {} without images.

    Args:
      logit: the part's logits of the images, float [N].
    """
    if not len(combined.split):
        return {}
    alone = evaluate.make_cases(combined.split, logit, part.info.scaling)
    return metrics.compare(
        alone,
        combined.compute_cases(point.scaling),
        part.info.threshold,
        point.threshold,
        scalings=(part.info.study_scaling, point.effective_study_scaling),
    )
