"""Build everything that one training run is made of, from its job and two splits."""

import dataclasses
import pathlib

import keras
import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from trainer.dataset import input_pipeline
from trainer.dataset.prepared_split import Split
from trainer.errors import ConfigError, DataError
from trainer.network import model as model_lib
from trainer.network import trainable_layers
from trainer.publishing.trained import Origin
from trainer.training import optimization
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.job import TrainingJob
from trainer.training.loop import Loop
from trainer.training.run import Run
from trainer.training.training_step import Objective


def build_run(
    job: TrainingJob, strategy: tf.distribute.Strategy, train: Split, validation: Split
) -> Run:
    """Return the run that trains on `train` and validates on `validation`, before its first step.

    Raises:
      ConfigError: see `model.build`; no epoch would be trained, or XLA lacks a deterministic
        gradient.
      DataError: `train` has images of one class only.
    """
    _check_both_classes(train)
    settings = job.settings
    class_weight = _class_weight(train.labels) if settings.class_weights else (1.0, 1.0)
    objective = Objective(settings.label_smoothing, class_weight)
    with strategy.scope():
        model, architecture, weights = _build_model(settings, job.dataset.image_size)
        steps = input_pipeline.count_steps_per_epoch(len(train), settings.global_batch_size)
        phases = optimization.build_phases(
            model, settings, steps, pretrained=weights != model_lib.RANDOM_WEIGHTS
        )
        changing = [*model.trainable_variables, *trainable_layers.moving_statistics(model)]
        average = WeightsAverage(changing, settings.ema_decay)
        loop = Loop(model, strategy, phases, objective, average, settings.xla)
    if not loop.epochs:
        raise ConfigError(
            "no epoch would be trained (head_epochs need pre-trained weights); set --config.epochs"
            " to 1 or more"
        )
    _check_xla(model, settings)
    # Only the last part of a path is recorded: in which folder it lay concerns nobody.
    name = pathlib.PurePosixPath(weights).name
    origin = Origin(settings.get("recipe", ""), name, settings.seed)
    return Run(job, model, architecture, origin, loop, average, objective, train, validation)


def _check_xla(model: keras.Model, settings: ml_collections.FrozenConfigDict) -> None:
    """Refuse XLA with deterministic max pooling, of which XLA has no gradient."""
    pools = [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.MaxPooling2D) and layer.trainable
    ]
    if settings.xla and settings.deterministic and pools:
        raise ConfigError(
            f"xla=True: XLA has no deterministic gradient of the layer {pools[0]}; set"
            " --config.deterministic=false, or omit --config.xla"
        )


def _build_model(
    settings: ml_collections.FrozenConfigDict, image_size: int
) -> tuple[keras.Model, model_lib.Architecture, str]:
    """Return the model, its architecture, and the weights that it starts from.

    Where ImageNet's weights can't be downloaded and the settings name a fallback backbone, that one
    starts from random weights.
    """
    architecture = model_lib.Architecture(
        settings.backbone, settings.pooling, tuple(settings.head_widths), settings.dropout
    )
    try:
        model = model_lib.build(
            architecture, image_size, settings.weights, settings.seed, settings.input_scale
        )
        return model, architecture, settings.weights
    except model_lib.WeightsUnavailableError as error:
        if not settings.fallback_backbone:
            raise
        logging.warning(
            "Starting from random weights with %s, which makes a worse model than"
            " pre-trained ones: %s",
            settings.fallback_backbone,
            error,
        )
    architecture = dataclasses.replace(architecture, backbone=settings.fallback_backbone)
    model = model_lib.build(architecture, image_size, model_lib.RANDOM_WEIGHTS, settings.seed)
    return model, architecture, model_lib.RANDOM_WEIGHTS


def _class_weight(labels: np.ndarray) -> tuple[float, float]:
    """Return the weights of the negative and the positive class under which both sum to the same.

    Their mean over the examples is 1.
    """
    positives = int(labels.sum())
    return len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)


def _check_both_classes(train: Split) -> None:
    positives = int(train.labels.sum())
    if not 0 < positives < len(train):
        raise DataError(
            f"there are {positives} positives among the {len(train)} images to train on;"
            " both classes are needed"
        )
