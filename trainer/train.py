"""Training from prepared data to a finished run folder: one network, or one for each fold."""

import json
from collections.abc import Mapping
from typing import Any

import keras
import ml_collections
import tensorflow as tf
from absl import logging

from trainer import cross_validation, input_pipeline, optimization, results, settings
from trainer import strategy as strategy_lib
from trainer.assemble import assemble
from trainer.checkpoints import check_same_run, write_text
from trainer.errors import ConfigError, HostLostError
from trainer.fit import fit
from trainer.results import Scored, Trained
from trainer.serving import Member, Network

SETTINGS = "config.json"


def train_and_evaluate(
    config: ml_collections.ConfigDict, data_dir: str, workdir: str, folds: int = 0, profile: bool = False
) -> dict[str, Any]:
    """Trains, evaluates on the test split, exports; goes on where an earlier call for the same `workdir` was stopped.

    Args:
      config: of `trainer.configs`.
      data_dir: where `humerus-prepare` wrote.
      workdir: gets `artifact/`, `metrics.json`, `history.csv`, `report.html`, `curves.png`, `checkpoints/`, `tensorboard/` and
        `config.json`; local or in a bucket. With folds see `cross_validation.train_folds`.
      folds: 0 for one network that trains on `train` and is checked on `validation`; else both are divided into so many folds.
      profile: trace some steps of a run without folds for TensorBoard's profiler.

    Returns:
      The content of `metrics.json`.

    Raises:
      ConfigError, DataError: the user's to mend. StoppedError, TrainingDivergedError: see `fit`. HostLostError: of several.
    """
    dataset = input_pipeline.metadata(data_dir)
    settings.check(config)
    recorded = settings.recorded(config, dataset, folds)
    begun = is_begun(workdir)
    if begun:
        check_same_run(f"{workdir}/{SETTINGS}", recorded)
    if tf.io.gfile.exists(f"{workdir}/{results.METRICS}"):
        logging.info("The run in %s is finished already.", workdir)
        with tf.io.gfile.GFile(f"{workdir}/{results.METRICS}") as file:
            return json.loads(file.read())
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_lib.create()
    if not begun and strategy_lib.is_chief(strategy):
        # Whatever an earlier call wrote there, it could not start with it.
        write_text(f"{workdir}/{SETTINGS}", json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    input_pipeline.per_replica_batch_size(config.global_batch_size, strategy.num_replicas_in_sync)
    strategy_lib.log_devices(strategy, config.global_batch_size, optimization.batch_factor(config))
    try:
        if folds:
            published = cross_validation.train_folds(config, dataset, strategy, data_dir, workdir, folds)
        else:
            trained = _train_one(config, dataset, strategy, data_dir, workdir, profile)
            published = results.publish(workdir, config, dataset, trained) if strategy_lib.is_chief(strategy) else {}
        strategy_lib.leave_together(strategy)
        return published
    except tf.errors.ResourceExhaustedError as error:
        raise _out_of_room(error, config.global_batch_size, strategy.num_replicas_in_sync, dataset["image_size"]) from error
    except tf.errors.OpError as error:
        if strategy_lib.number_of_workers() == 1:
            raise
        raise HostLostError(
            f"a host of this run was lost, or can't be reached ({error.message.splitlines()[0]}); start all hosts again with the"
            " same command, and they go on from the last checkpoint"
        ) from error


def is_begun(workdir: str) -> bool:
    """Whether a run left anything there that another call could go on from."""
    left = (f"{workdir}/checkpoints/*.json", f"{workdir}/fold-*/checkpoints/*.json", f"{workdir}/{results.METRICS}")
    return bool(tf.io.gfile.glob(list(left)))


def _train_one(
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    strategy: tf.distribute.Strategy,
    data_dir: str,
    workdir: str,
    profile: bool,
) -> Trained:
    train, validation, test = (
        input_pipeline.load_split(data_dir, name, config.cache) for name in ("train", "validation", "test")
    )
    model, architecture, run = assemble(config, strategy, dataset, train, validation, workdir, profile)
    state = fit(run, config)

    def scored(split: input_pipeline.Split) -> Scored:
        return Scored(split, run.loop.predict(split, config.global_batch_size, config.test_time_flip))

    network = Network(architecture, (Member(model),), config.test_time_flip)
    return Trained(network, train, scored(validation), "validation", scored(test), state.history)


def _out_of_room(error: tf.errors.ResourceExhaustedError, batch: int, replicas: int, image_size: int) -> Exception:
    """TensorFlow says the same of a full disk and of a full device; the user must do something else about each."""
    if "No space left" in str(error):
        return OSError(f"the disk is full: {error.message}; make room, and the same command goes on from the last checkpoint")
    smaller = max(1, batch // replicas // 2) * replicas
    return ConfigError(
        f"the device is out of memory with global_batch_size={batch} ({batch // replicas} images of {image_size} px on each of"
        f" {replicas} replicas); try --config.global_batch_size={smaller} and a new --workdir, or prepare smaller images"
    )
