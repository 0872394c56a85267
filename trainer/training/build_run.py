"""From a configuration and two splits to everything that one training run is made of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from trainer.dataset import input_pipeline
from trainer.dataset.input_pipeline import Split
from trainer.errors import DataError
from trainer.network import model as model_lib
from trainer.training import optimization
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.fit import Run
from trainer.training.loop import Loop, Objective


def assemble(
    config: ml_collections.ConfigDict,
    strategy: tf.distribute.Strategy,
    dataset: Mapping[str, Any],
    train: Split,
    validation: Split,
    workdir: str,
    profile: bool = False,
) -> tuple[keras.Model, model_lib.Architecture, Run]:
    """The model in its initial state, what it is, and the run that will train it.

    Args:
      dataset: metadata of the prepared data.
      workdir: of this run; gets checkpoints, history and TensorBoard's events.
      profile: trace some steps for TensorBoard's profiler.

    Raises:
      ConfigError: see `model.build`. DataError: one class only.
    """
    _check_trainable(train)
    objective = Objective(
        config.label_smoothing, _class_weight(train.labels) if config.class_weights else (1.0, 1.0)
    )
    with strategy.scope():
        model, architecture, pretrained = _build(config, dataset["image_size"])
        steps = input_pipeline.steps_per_epoch(len(train), config.global_batch_size)
        phases = optimization.phases(model, config, steps, pretrained)
        changing = [*model.trainable_variables, *model_lib.moving_statistics(model)]
        average = WeightsAverage(changing, config.ema_decay)
        loop = Loop(model, strategy, phases, objective, average, config.xla)
    return model, architecture, Run(loop, average, objective, train, validation, workdir, profile)


def _build(
    config: ml_collections.ConfigDict, image_size: int
) -> tuple[keras.Model, model_lib.Architecture, bool]:
    """The model, what it is, and whether its backbone is pre-trained."""
    architecture = model_lib.Architecture(
        config.backbone, config.pooling, tuple(config.head_widths), config.dropout
    )
    try:
        return (
            model_lib.build(architecture, image_size, config.weights, config.seed),
            architecture,
            config.weights != "none",
        )
    except model_lib.WeightsUnavailableError as error:
        if not config.fallback_backbone:
            raise
        logging.warning(
            "GOING ON FROM RANDOM WEIGHTS with %s, which ends worse than pre-trained ones: %s",
            config.fallback_backbone,
            error,
        )
        architecture = dataclasses.replace(architecture, backbone=config.fallback_backbone)
        return model_lib.build(architecture, image_size, "none", config.seed), architecture, False


def _class_weight(labels: np.ndarray) -> tuple[float, float]:
    """Weights under which both classes add up to the same: (negative, positive), mean 1 over the examples."""
    positives = int(labels.sum())
    return len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)


def _check_trainable(train: Split) -> None:
    positives = int(train.labels.sum())
    if not 0 < positives < len(train):
        raise DataError(
            f"there are {positives} positives among the {len(train)} images to train on; both classes are needed"
        )
