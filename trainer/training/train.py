"""Train from prepared data to a finished run folder: one network, or one for each fold."""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from trainer import storage
from trainer.dataset import input_pipeline, prepared_split
from trainer.errors import ConfigError, DataError, HostLostError
from trainer.network.serving import Member, Network
from trainer.program import run_lock
from trainer.publishing import artifact_folder, results
from trainer.publishing.results import FinishedRun
from trainer.publishing.trained import ScoredSplit, TrainingResult
from trainer.tracking.tracker import Tracker, is_recorded, read_history, track
from trainer.training import cross_validation, flip_choice, optimization, precision, settings
from trainer.training import strategy as strategy_lib
from trainer.training.build_run import build_run
from trainer.training.checkpoints import check_same_run, read_settings
from trainer.training.fit import fit
from trainer.training.job import TrainingJob

_ERRORS_OF_OTHER_HOSTS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)
_WORDS_OF_OTHER_HOSTS = re.compile("collective|heartbeat|coordination", re.IGNORECASE)


def train_and_evaluate(job: TrainingJob) -> dict[str, Any]:
    """Train, evaluate on the test split, and export; continue where an earlier call was stopped.

    The workdir gets `artifact/`, `metrics.json`, `history.csv`, `report.html`, `curves.png`,
    `checkpoints/`, `tensorboard/` and `config.json`; with folds see `cross_validation.train_folds`.

    Returns:
      The content of `metrics.json`; on all hosts but the chief it is empty.

    Raises:
      ConfigError, DataError: the user can mend it.
      OSError: this host can't listen to the others.
      StoppedError, TrainingDivergedError: see `fit`.
      HostLostError: another host of this run was lost.
    """
    job = precision.take_recorded(job)
    continues = check_workdir(job)
    if finished := read_finished(job.workdir):
        logging.info("The run in %s is finished already.", job.workdir)
        _send_what_is_missing(job, finished)
        return finished
    artifact_folder.check_replaceable(f"{job.workdir}/artifact")
    if job.folds and job.profile:
        logging.warning("--profile traces runs without --folds only.")
    if job.settings.deterministic:
        keras.utils.set_random_seed(job.settings.seed)
        tf.config.experimental.enable_op_determinism()
    try:
        strategy = strategy_lib.create()
        # This comes before any other collective operation: hosts with different settings could
        # start different ones.
        shared = settings.select_shared(job.settings, job.dataset, job.folds)
        strategy_lib.check_same_settings(strategy, shared)
        job = precision.choose(job, strategy)
    except tf.errors.OpError as error:
        if lost := _describe_lost_host(error):
            raise lost from error
        raise
    keras.config.set_dtype_policy(job.settings.precision)
    strategy_lib.check_precision(strategy, job.settings.precision)
    writes = strategy_lib.is_chief(strategy)
    lock = run_lock.hold(job.workdir, "humerus-train") if writes else contextlib.nullcontext()
    with lock:
        return _train_and_publish(job, strategy, continues)


def _train_and_publish(
    job: TrainingJob, strategy: tf.distribute.Strategy, continues: bool
) -> dict[str, Any]:
    """Train and publish, as `train_and_evaluate` describes, on the devices of the strategy."""
    if not continues and strategy_lib.is_chief(strategy):
        # Settings that lie there already are of a run that never reached a checkpoint.
        _write_settings(job)
    batch_size = job.settings.global_batch_size
    per_replica = input_pipeline.compute_per_replica_batch_size(
        batch_size, strategy.num_replicas_in_sync, job.settings.gradient_accumulation_steps
    )
    factor = optimization.compute_batch_factor(job.settings)
    strategy_lib.log_devices(strategy, batch_size, factor)
    try:
        # After this the chief has written its settings.
        strategy_lib.wait_for_hosts(strategy)
        settings_exist = storage.exists(f"{job.workdir}/{results.SETTINGS}")
        strategy_lib.check_shared(strategy, settings_exist, job.workdir)
        train = cross_validation.train_folds if job.folds else _train_one
        is_chief = strategy_lib.is_chief(strategy)
        with track(
            job.track if is_chief else None, job.workdir, _describe_settings(job)
        ) as tracker:
            finished_run = train(job, strategy, tracker)
            published = results.publish(finished_run) if is_chief else {}
            tracker.log_results(published)
        strategy_lib.wait_for_hosts(strategy)
        return published
    except (tf.errors.OpError, MemoryError) as error:
        if translated := _translate(error, job, per_replica, strategy.num_replicas_in_sync):
            raise translated from error
        raise


def check_workdir(job: TrainingJob) -> bool:
    """Return whether the workdir holds a run that this call would continue.

    Raises:
      ConfigError: it holds a run with other settings or data.
    """
    continues = has_checkpoint(job.workdir)
    if continues:
        recorded = settings.select_recorded(job.settings, job.dataset, job.folds)
        check_same_run(f"{job.workdir}/{results.SETTINGS}", recorded)
    return continues


def has_checkpoint(workdir: str) -> bool:
    """Return whether a run left a checkpoint or results there."""
    return bool(storage.glob(*_list_marks(workdir), f"{workdir}/{results.METRICS}"))


def _list_marks(workdir: str) -> tuple[str, str]:
    """Return the patterns of the commit marks of a run's checkpoints."""
    return f"{workdir}/checkpoints/*.json", f"{workdir}/fold-*/checkpoints/*.json"


def read_finished(workdir: str) -> dict[str, Any] | None:
    """Return the results of a finished run; None if it is unfinished or its artifact incomplete.

    From the checkpoints, the results and the artifact can be made again.

    Raises:
      DataError: the results are damaged, artifact and checkpoints are absent, or a newer version
        wrote the artifact.
    """
    metrics = storage.read_json(
        f"{workdir}/{results.METRICS}",
        "remove that file, and the same command writes it again from the checkpoints",
    )
    if metrics is None or artifact_folder.is_complete(f"{workdir}/artifact"):
        return metrics
    if not storage.glob(*_list_marks(workdir)):
        raise DataError(
            f"the run in {workdir} is finished, but its artifact and its checkpoints are gone; "
            "restore one of them, or name another --workdir to train again"
        )
    logging.warning(
        "The artifact of the run in %s is missing or incomplete; it is exported again.", workdir
    )
    return None


def _write_settings(job: TrainingJob) -> None:
    path = f"{job.workdir}/{results.SETTINGS}"
    earlier = read_settings(path)
    if earlier and "data.fingerprint" not in earlier:
        raise ConfigError(f"{path} is a file of another program; name another --workdir")
    recorded = settings.select_recorded(job.settings, job.dataset, job.folds)
    text = json.dumps(recorded, indent=2, sort_keys=True)
    storage.write_text(path, f"{text}\n")


def _describe_settings(job: TrainingJob) -> dict[str, Any]:
    """Return the record of a run that `config.json` holds."""
    return json.loads(json.dumps(settings.select_recorded(job.settings, job.dataset, job.folds)))


def _send_what_is_missing(job: TrainingJob, metrics: Mapping[str, Any]) -> None:
    """Send to the tracker what it lacks of a finished run."""
    if job.track is None or is_recorded(job.workdir):
        return
    with track(job.track, job.workdir, _describe_settings(job)) as tracker:
        for fold in [f"fold-{k + 1}" for k in range(job.folds)] or [""]:
            tracker.log_history(read_history(f"{job.workdir}/{fold}".rstrip("/")), fold)
        tracker.log_results(metrics)


def _train_one(job: TrainingJob, strategy: tf.distribute.Strategy, tracker: Tracker) -> FinishedRun:
    """Train one network on the training split, and score the other splits with it."""
    train, validation, test = (
        prepared_split.load_split(job.data_dir, name, job.settings.cache)
        for name in ("train", "validation", "test")
    )
    run = build_run(job, strategy, train, validation)
    state = fit(run, tracker.log_history)
    run = run.convert_to_float32()
    logits = run.score(validation, flip_choice.list_candidates(job.settings))
    chosen = flip_choice.choose(validation.labels, logits)
    held_out = ScoredSplit(validation, logits[chosen.flips])
    tested = ScoredSplit(test, run.score(test, [chosen.flips])[chosen.flips])
    network = Network((Member(run.model, run.architecture),), chosen.flips)
    trained = TrainingResult(network, train, held_out, run.origin, chosen.gains)
    return job.finish(trained, "validation", tested, state.history)


def _translate(
    error: Exception, job: TrainingJob, per_replica: int, replicas: int
) -> Exception | None:
    """Return an error that tells the user what to do; None for an error of the program itself.

    Args:
      per_replica: images of a batch on each replica.
      replicas: number of replicas.
    """
    message = str(error)
    # Of a full disk, TensorFlow says nearly the same as of a full device.
    if "No space left" in message:
        return OSError(
            f"the disk is full: {message}; make room, and the same command continues from the last"
            " checkpoint"
        )
    is_exhausted = isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)
    if is_exhausted or "out of memory" in message.lower():
        return _explain_out_of_memory(job, per_replica, replicas)
    return _describe_lost_host(error)


def _describe_lost_host(error: Exception) -> HostLostError | None:
    """Return the error that says that a host was lost; None for an error that means another."""
    message = str(error)
    if strategy_lib.count_workers() > 1 and (
        isinstance(error, _ERRORS_OF_OTHER_HOSTS) or _WORDS_OF_OTHER_HOSTS.search(message)
    ):
        return HostLostError(
            f"a host of this run was lost, or can't be reached ({message.splitlines()[0]});"
            " start all hosts again with the same command, and they go on from the last checkpoint"
        )
    return None


def _explain_out_of_memory(job: TrainingJob, per_replica: int, replicas: int) -> ConfigError:
    """Return the error that suggests the next smaller part of the batch, where there is one."""
    parts = job.settings.gradient_accumulation_steps
    at_once = per_replica // parts
    smaller = ""
    if at_once > 1:
        more = next(n for n in range(parts + 1, per_replica + 1) if per_replica % n == 0)
        # A checkpoint binds the run to its settings.
        new_workdir = " and a new --workdir" if has_checkpoint(job.workdir) else ""
        smaller = f"try --config.gradient_accumulation_steps={more}{new_workdir}, or "
    return ConfigError(
        f"the device is out of memory with global_batch_size={per_replica * replicas}"
        f" ({at_once} images of {job.dataset.image_size} px at once on each of {replicas}"
        f" replicas); {smaller}prepare smaller images or choose a smaller --config.backbone"
    )
