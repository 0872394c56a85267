"""Training from prepared data to a finished run folder: one network, or one for each fold."""

import json
import re
from collections.abc import Mapping
from typing import Any

import keras
import ml_collections
import tensorflow as tf
from absl import logging

from trainer import storage
from trainer.dataset import input_pipeline
from trainer.errors import ConfigError, HostLostError
from trainer.network.serving import Member, Network
from trainer.publishing import results
from trainer.publishing.results import Scored, Trained
from trainer.training import cross_validation, optimization, settings
from trainer.training import strategy as strategy_lib
from trainer.training.build_run import assemble
from trainer.training.checkpoints import check_same_run
from trainer.training.fit import fit

SETTINGS = results.SETTINGS
_OF_OTHER_HOSTS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)
_TELLS_OF_OTHER_HOSTS = re.compile("collective|heartbeat|coordination", re.IGNORECASE)


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    data_dir: str,
    workdir: str,
    folds: int = 0,
    profile: bool = False,
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
    if metrics := storage.read_bytes(f"{workdir}/{results.METRICS}"):
        logging.info("The run in %s is finished already.", workdir)
        return json.loads(metrics)
    if folds and profile:
        logging.warning("--profile traces runs without --folds only.")
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_lib.create()
    if not begun and strategy_lib.is_chief(strategy):
        # Whatever an earlier call wrote there, it could not start with it.
        storage.write_text(
            f"{workdir}/{SETTINGS}", json.dumps(recorded, indent=2, sort_keys=True) + "\n"
        )
    share = input_pipeline.per_replica_batch_size(
        config.global_batch_size, strategy.num_replicas_in_sync
    )
    strategy_lib.log_devices(strategy, config.global_batch_size, optimization.batch_factor(config))
    try:
        strategy_lib.on_all_hosts(
            strategy, 0
        )  # the chief among them, so that its settings are written
        strategy_lib.check_shared(strategy, storage.exists(f"{workdir}/{SETTINGS}"), workdir)
        if folds:
            published = cross_validation.train_folds(
                config, dataset, strategy, data_dir, workdir, folds
            )
        else:
            trained = _train_one(config, dataset, strategy, data_dir, workdir, profile)
            published = (
                results.publish(workdir, config, dataset, trained)
                if strategy_lib.is_chief(strategy)
                else {}
            )
        strategy_lib.leave_together(strategy)
        return published
    except (tf.errors.OpError, MemoryError) as error:
        if explained := _explained(
            error, share, strategy.num_replicas_in_sync, dataset["image_size"], is_begun(workdir)
        ):
            raise explained from error
        raise


def is_begun(workdir: str) -> bool:
    """Whether a run left anything there that another call could go on from."""
    left = (
        f"{workdir}/checkpoints/*.json",
        f"{workdir}/fold-*/checkpoints/*.json",
        f"{workdir}/{results.METRICS}",
    )
    return bool(storage.glob(*left))


def _train_one(
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    strategy: tf.distribute.Strategy,
    data_dir: str,
    workdir: str,
    profile: bool,
) -> Trained:
    train, validation, test = (
        input_pipeline.load_split(data_dir, name, config.cache)
        for name in ("train", "validation", "test")
    )
    model, architecture, run = assemble(
        config, strategy, dataset, train, validation, workdir, profile
    )
    state = fit(run, config)

    def scored(split: input_pipeline.Split) -> Scored:
        return Scored(
            split, run.loop.predict(split, config.global_batch_size, config.test_time_flip)
        )

    network = Network(architecture, (Member(model),), config.test_time_flip)
    return Trained(network, train, scored(validation), "validation", scored(test), state.history)


def _explained(
    error: Exception, share: int, replicas: int, image_size: int, begun: bool
) -> Exception | None:
    """What a user can do something about, as a sentence; None for what is our own mistake.

    Args:
      share: images of a batch on each replica.
      begun: whether a checkpoint binds the run to its settings.
    """
    said = str(error)
    if (
        "No space left" in said
    ):  # of a full disk, TensorFlow says nearly the same as of a full device
        return OSError(
            f"the disk is full: {said}; make room, and the same command goes on from the last checkpoint"
        )
    if (
        isinstance(error, (tf.errors.ResourceExhaustedError, MemoryError))
        or "out of memory" in said.lower()
    ):
        smaller = f"try --config.global_batch_size={share // 2 * replicas}{' and a new --workdir' if begun else ''}, or "
        return ConfigError(
            f"the device is out of memory with global_batch_size={share * replicas} ({share} images of {image_size} px on each of"
            f" {replicas} replicas); {smaller if share > 1 else ''}prepare smaller images or choose a smaller --config.backbone"
        )
    if strategy_lib.number_of_workers() > 1 and (
        isinstance(error, _OF_OTHER_HOSTS) or _TELLS_OF_OTHER_HOSTS.search(said)
    ):
        return HostLostError(
            f"a host of this run was lost, or can't be reached ({said.splitlines()[0]}); start all hosts again with the"
            " same command, and they go on from the last checkpoint"
        )
    return None
