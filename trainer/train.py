"""Training from prepared data to a finished run folder."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import input_pipeline, optimization, results
from trainer import model as model_lib
from trainer import strategy as strategy_lib
from trainer.checkpoints import check_same_run
from trainer.errors import DataError
from trainer.fit import Run, fit
from trainer.input_pipeline import Split
from trainer.loop import Loop, Objective, WeightsAverage

RUNTIME_KEYS = ("cache", "checkpoint_every_steps", "keep_checkpoints", "steps_per_execution")
"""Settings that don't change what is learnt: a run may be continued under others."""


def train_and_evaluate(config: ml_collections.ConfigDict, data_dir: str, workdir: str) -> dict[str, Any]:
    """Trains, evaluates on the test split, exports; goes on where an earlier call for the same `workdir` was stopped.

    Args:
      config: of `trainer.configs`.
      data_dir: where `humerus-prepare` wrote.
      workdir: gets `artifact/`, `metrics.json`, `history.csv`, `report.html`, `curves.png`, `checkpoints/`, `tensorboard/` and
        `config.json`; local or in a bucket.

    Returns:
      The content of `metrics.json`.

    Raises:
      ConfigError, DataError: the user's to mend. StoppedError, TrainingDivergedError: see `fit`.
    """
    dataset = input_pipeline.metadata(data_dir)
    check_same_run(f"{workdir}/config.json", _settings(config, dataset))
    if tf.io.gfile.exists(f"{workdir}/{results.METRICS}"):
        logging.info("The run in %s is finished already.", workdir)
        with tf.io.gfile.GFile(f"{workdir}/{results.METRICS}") as file:
            return json.loads(file.read())
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_lib.create()
    input_pipeline.per_replica_batch_size(config.global_batch_size, strategy.num_replicas_in_sync)
    strategy_lib.log_devices(strategy, config.global_batch_size)
    train, validation, test = (
        input_pipeline.load_split(data_dir, name, config.cache) for name in ("train", "validation", "test")
    )
    _check_trainable(train, data_dir)
    model, architecture, run = _assemble(config, strategy, dataset, train, validation, workdir)
    state = fit(run, config)
    scored = {split.name: (split, run.loop.predict(split, config.global_batch_size)) for split in (test, validation)}
    if not run.is_chief:
        return {}
    return results.publish(workdir, config, dataset, model, architecture, train, scored, state.history)


def _assemble(
    config: ml_collections.ConfigDict,
    strategy: tf.distribute.Strategy,
    dataset: Mapping[str, Any],
    train: Split,
    validation: Split,
    workdir: str,
) -> tuple[keras.Model, model_lib.Architecture, Run]:
    objective = Objective(config.label_smoothing, _class_weight(train.labels) if config.class_weights else (1.0, 1.0))
    with strategy.scope():
        model, architecture, pretrained = _build(config, dataset["image_size"])
        steps = input_pipeline.steps_per_epoch(len(train), config.global_batch_size)
        phases = optimization.phases(model, config, steps, pretrained)
        changing = [*model.trainable_variables, *_statistics(model)]
        average = WeightsAverage(changing, config.ema_decay)
        loop = Loop(model, strategy, phases, objective, average)
    return model, architecture, Run(loop, average, objective, train, validation, workdir, strategy_lib.is_chief(strategy))


def _build(config: ml_collections.ConfigDict, image_size: int) -> tuple[keras.Model, model_lib.Architecture, bool]:
    """The model, what it is, and whether its backbone is pre-trained."""
    architecture = model_lib.Architecture(config.backbone, config.pooling, tuple(config.head_widths), config.dropout)
    try:
        return model_lib.build(architecture, image_size, config.weights, config.seed), architecture, config.weights != "none"
    except model_lib.WeightsUnavailableError as error:
        if not config.fallback_backbone:
            raise
        logging.warning(
            "GOING ON FROM RANDOM WEIGHTS with %s, which ends worse than pre-trained ones: %s", config.fallback_backbone, error
        )
        architecture = dataclasses.replace(architecture, backbone=config.fallback_backbone)
        return model_lib.build(architecture, image_size, "none", config.seed), architecture, False


def _statistics(model: keras.Model) -> list[keras.Variable]:
    """Moving means and variances of the BatchNormalization layers in training."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in layers for variable in layer.non_trainable_variables]


def _class_weight(labels: np.ndarray) -> tuple[float, float]:
    """Weights under which both classes add up to the same: (negative, positive), mean 1 over the examples."""
    positives = int(labels.sum())
    return len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)


def _check_trainable(train: Split, data_dir: str) -> None:
    positives = int(train.labels.sum())
    if not 0 < positives < len(train):
        raise DataError(
            f"{data_dir}: the training split has {positives} positives among {len(train)} images; both classes are needed"
        )


def _settings(config: ml_collections.ConfigDict, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change between the calls of one run, with flat keys."""
    flat = {f"config.{key}": value for key, value in _flat(config.to_dict()).items() if key not in RUNTIME_KEYS}
    return {**flat, "data.fingerprint": dataset["fingerprint"], "data.image_size": dataset["image_size"]}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
