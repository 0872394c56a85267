"""Train epoch by epoch: validate, keep the best weights, stop early, continue after a kill."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np
import sklearn.metrics
import tensorflow as tf
from absl import logging

from trainer.dataset.augmentation import Augmentation
from trainer.dataset.input_pipeline import count_steps_per_epoch
from trainer.errors import StoppedError, TrainingDivergedError
from trainer.evaluation.cases import sample_rows
from trainer.program.signals import RecordedSignals
from trainer.training import strategy as strategy_lib
from trainer.training.journal import Journal
from trainer.training.loop import Interrupted, State
from trainer.training.progress import ProgressReporter
from trainer.training.run import Run

_SHOWN_OF_EACH_CLASS = 4
_CHECKED = 16
"""Training images whose logits must be numbers where there are no validation images."""


def fit(
    run: Run, on_history: Callable[[Sequence[Mapping[str, float]]], None] = lambda history: None
) -> State:
    """Train from the state that the run is in to its end, and leave the best weights in the model.

    Args:
      on_history: is given the history at the start, and after every epoch once it is saved.

    Raises:
      StoppedError: this host or another got SIGTERM or SIGINT; the checkpoint is written.
      TrainingDivergedError: the loss is no longer a number.
      ConfigError: the hosts don't share the workdir.
      DataError: checkpoints are damaged.
    """
    strategy = run.loop.strategy
    with contextlib.closing(Journal(run)) as journal, RecordedSignals() as signals:
        state = journal.restore()
        if state.total_steps:
            logging.info("Continuing from step %d (epoch %d).", state.total_steps, state.epoch + 1)
        on_history(state.history)
        try:
            while state.epoch < run.loop.epochs and not state.stopped_early:
                _train_and_validate(run, state, journal, signals.arrived)
                on_history(state.history)
            # The other hosts wait here until the chief has written the best weights.
            if any(strategy_lib.gather_from_hosts(strategy, signals.arrived())):
                raise Interrupted
        except Interrupted:
            journal.save(state)
            strategy_lib.wait_for_hosts(strategy)
            raise _describe_stop(signals.name, state, run.is_chief) from None
        journal.restore_best()
    return state


def _train_and_validate(
    run: Run, state: State, journal: Journal, should_stop: Callable[[], bool]
) -> None:
    """Train the rest of the current epoch, validate, and save what follows from it."""
    settings = run.job.settings
    steps = count_steps_per_epoch(len(run.train), settings.global_batch_size)
    journal.progress.begin_epoch(state.epoch, state.step, steps)
    trained = run.loop.train_epoch(
        run.train,
        state,
        settings.global_batch_size,
        augmentation=Augmentation(**settings.augmentation),
        seed=settings.seed,
        steps_per_execution=settings.steps_per_execution,
        after_step=journal.after_step,
        should_stop=should_stop,
    )
    with run.average.use_averages():
        validated = _validate(run, state, journal.progress, should_stop)
        row = {"epoch": state.epoch + 1, **trained, **validated}
        row["criterion"] = _compute_criterion([*state.history, row], settings)
        improved = all(row["criterion"] > earlier["criterion"] for earlier in state.history)
        if improved:
            journal.save_best(state.epoch)
    state.finish_epoch(row)
    _react_to_plateau(state, settings)
    journal.end_epoch(state, improved)


def _validate(
    run: Run, state: State, progress: ProgressReporter, should_stop: Callable[[], bool]
) -> dict[str, float]:
    """Return loss, accuracy at 0.5 and AUROC on the validation split.

    AUROC is NaN where all images are of one class; all three are NaN where there is no image.
    """
    labels = run.validation.labels
    logits = run.predict(run.validation, should_stop=should_stop)
    if not len(labels):
        rows = sample_rows(len(run.train), _CHECKED)
        _check_finite(run.predict(run.train.select(rows)), "an output for training images")
        return {"val_loss": float("nan"), "val_accuracy": float("nan"), "val_auroc": float("nan")}
    loss = run.objective(tf.constant(labels, tf.float32), tf.constant(logits)).numpy()
    _check_finite(loss, "the validation loss")
    if run.is_chief:
        shown = run.validation.images[_select_shown(labels)]
        maps = run.loop.compute_maps(shown)
        progress.report_validation(logits, labels, (shown, maps), state.total_steps)
    both_classes = 0 < labels.sum() < len(labels)
    auroc = sklearn.metrics.roc_auc_score(labels, logits) if both_classes else float("nan")
    return {
        "val_loss": float(loss.mean()),
        "val_accuracy": float(((logits > 0) == labels).mean()),
        "val_auroc": float(auroc),
    }


def _check_finite(values: np.ndarray, name: str) -> None:
    """Raise `TrainingDivergedError` unless all values are finite; `name` says what they are."""
    if not np.isfinite(values).all():
        raise TrainingDivergedError(
            f"{name} is not a number; lower the learning rate in a new --workdir"
        )


def _select_shown(labels: np.ndarray) -> np.ndarray:
    """Return the indices of the first positives and the first negatives, whose maps are shown."""
    return np.concatenate(
        [np.flatnonzero(labels == label)[:_SHOWN_OF_EACH_CLASS] for label in (1, 0)]
    )


def _compute_criterion(
    history: list[Mapping[str, float]], settings: ml_collections.FrozenConfigDict
) -> float:
    """Return what the best epoch is chosen by, larger is better.

    It is the monitored figure, averaged over the last `monitor_smoothing` epochs. With
    `monitor=last`, and without validation images, it is the number of the epoch. Where all
    validation images are of one class, the loss stands in for AUROC.
    """
    recent = history[-settings.monitor_smoothing :]
    if settings.monitor == "last" or np.isnan(recent[-1]["val_loss"]):
        return float(recent[-1]["epoch"])
    by_auroc = settings.monitor == "auroc" and not np.isnan(recent[-1]["val_auroc"])
    return float(np.mean([row["val_auroc"] if by_auroc else -row["val_loss"] for row in recent]))


def _react_to_plateau(state: State, settings: ml_collections.FrozenConfigDict) -> None:
    """Lower the learning rate on a plateau, and end a run that no longer improves."""
    criteria = [row["criterion"] for row in state.history]
    stale = len(criteria) - 1 - int(np.argmax(criteria))
    if settings.schedule == "plateau" and stale and stale % settings.plateau_patience == 0:
        state.plateau_scale *= settings.plateau_factor
    in_first_phase = state.epoch <= settings.head_epochs
    patience = settings.early_stopping_patience
    if patience and stale >= patience and not in_first_phase:
        state.stopped_early = True


def _describe_stop(signal_name: str, state: State, is_chief: bool) -> StoppedError:
    """Return the error that ends a run that was asked to stop."""
    cause = signal_name or "a signal to another host"
    then = (
        "the same command continues from there"
        if is_chief
        else "the first host has written the checkpoint"
    )
    return StoppedError(f"stopped by {cause} after step {state.total_steps}; {then}")
