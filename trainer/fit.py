"""Epochs: train, validate, keep the best weights, stop when nothing improves, and be ready to be killed at any step."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import sklearn.metrics
import tensorflow as tf
from absl import logging

from trainer import vitals
from trainer.checkpoints import Checkpoints, write_text
from trainer.errors import ConfigError, StoppedError, TrainingDivergedError
from trainer.input_pipeline import Augmentation, Split, steps_per_epoch
from trainer.loop import Loop, Objective, State
from trainer.watch import Watch
from trainer.weights_average import WeightsAverage

HISTORY = "history.csv"
_SHOWN_OF_EACH = 4


@dataclasses.dataclass(frozen=True)
class Run:
    """What one training run is made of."""

    loop: Loop
    average: WeightsAverage
    objective: Objective
    train: Split
    validation: Split
    workdir: str
    is_chief: bool
    profile: bool = False


def fit(run: Run, config: ml_collections.ConfigDict) -> State:
    """Trains from wherever the run stands to its end and leaves the best weights in the model.

    Raises:
      StoppedError: SIGTERM or SIGINT came; the checkpoint is written.
      TrainingDivergedError: the loss is no longer a number.
    """
    checkpoints = Checkpoints(f"{run.workdir}/checkpoints", run.loop.variables(), config.keep_checkpoints, run.is_chief)
    best = Checkpoints(f"{run.workdir}/checkpoints/best", run.loop.weights(), 1, run.is_chief)
    state = State(**(checkpoints.restore() or {}))
    if state.total_steps:
        logging.info("Going on from step %d (epoch %d).", state.total_steps, state.epoch + 1)
    watch = Watch(run.workdir, run.loop.epochs, run.is_chief, run.profile)
    with _Signals() as signals, contextlib.closing(watch):
        while state.epoch < run.loop.epochs and not state.stopped_early:
            _epoch(run, config, state, checkpoints, best, signals, watch)
    if signals.caught:  # behind the last step; its checkpoint is written
        raise signals.stopped(state)
    if not best.restore():
        raise ConfigError(f"{run.workdir}: no epoch was trained; set --config.epochs to 1 or more")
    return state


def _epoch(
    run: Run,
    config: ml_collections.ConfigDict,
    state: State,
    checkpoints: Checkpoints,
    best: Checkpoints,
    signals: "_Signals",
    watch: Watch,
) -> None:
    watch.begin_epoch(state.epoch, state.step, steps_per_epoch(len(run.train), config.global_batch_size))

    def after_step(state: State, measured: Mapping[str, float]) -> None:
        watch.step(state.step, state.total_steps, measured)
        vitals.progress(step=state.total_steps)
        if signals.caught:
            checkpoints.save(state.total_steps, dataclasses.asdict(state))
            raise signals.stopped(state)
        if state.total_steps % config.checkpoint_every_steps < config.steps_per_execution:
            checkpoints.save(state.total_steps, dataclasses.asdict(state))

    trained = run.loop.train_epoch(
        run.train,
        state,
        config.global_batch_size,
        augmentation=Augmentation(**config.augmentation),
        seed=config.seed,
        steps_per_execution=config.steps_per_execution,
        after_step=after_step,
    )
    run.average.swap()
    row = {"epoch": state.epoch + 1, **trained, **_validate(run, config, state, watch)}
    row["criterion"] = _criterion([*state.history, row], config)
    improved = all(row["criterion"] > earlier["criterion"] for earlier in state.history)
    if improved:
        best.save(state.epoch, {"epoch": state.epoch})
    run.average.swap()
    state.history.append(row)
    state.epoch, state.step = state.epoch + 1, 0
    _react(state, config)
    checkpoints.save(state.total_steps, dataclasses.asdict(state))
    watch.end_epoch(row, state.total_steps, improved)
    vitals.progress(**{name: row[name] for name in row if name in vitals.METRICS})
    if run.is_chief:
        _write_history(run.workdir, state)


def _validate(run: Run, config: ml_collections.ConfigDict, state: State, watch: Watch) -> dict[str, float]:
    """Loss, accuracy at 0.5 and AUROC on the validation split; AUROC is NaN where it has one class only."""
    logits, labels = run.loop.predict(run.validation, config.global_batch_size), run.validation.labels
    if not len(labels):
        return {"val_loss": float("nan"), "val_accuracy": float("nan"), "val_auroc": float("nan")}
    loss = run.objective(tf.constant(labels, tf.float32), tf.constant(logits)).numpy()
    if not np.isfinite(loss).all():
        raise TrainingDivergedError("the validation loss is not a number; lower the learning rate in a new --workdir")
    if run.is_chief:
        shown = run.validation.images[_shown(labels)]
        watch.show_validation(logits, labels, (shown, run.loop.maps(shown)), state.total_steps)
    auroc = sklearn.metrics.roc_auc_score(labels, logits) if 0 < labels.sum() < len(labels) else float("nan")
    return {"val_loss": float(loss.mean()), "val_accuracy": float(((logits > 0) == labels).mean()), "val_auroc": float(auroc)}


def _shown(labels: np.ndarray) -> np.ndarray:
    """Indices of the images whose maps are shown every epoch: the first positives, then the first negatives."""
    return np.concatenate([np.flatnonzero(labels == label)[:_SHOWN_OF_EACH] for label in (1, 0)])


def _criterion(history: list[Mapping[str, float]], config: ml_collections.ConfigDict) -> float:
    """What the best epoch is chosen by, larger is better: the monitored figure, averaged over the last epochs.

    With `last`, and without validation images, it is the epoch number. With one class only, the loss stands in for AUROC.
    """
    recent = history[-max(1, config.monitor_smoothing) :]
    if config.monitor == "last" or np.isnan(recent[-1]["val_loss"]):
        return float(recent[-1]["epoch"])
    by_auroc = config.monitor == "auroc" and not np.isnan(recent[-1]["val_auroc"])
    return float(np.mean([row["val_auroc"] if by_auroc else -row["val_loss"] for row in recent]))


def _react(state: State, config: ml_collections.ConfigDict) -> None:
    """Lowers the learning rate on a plateau and ends a run that no longer improves."""
    criteria = [row["criterion"] for row in state.history]
    stale = len(criteria) - 1 - int(np.argmax(criteria))
    in_first_phase = state.epoch <= config.head_epochs
    if config.schedule == "plateau" and stale and stale % config.plateau_patience == 0:
        state.plateau_scale *= config.plateau_factor
    if config.early_stopping_patience and stale >= config.early_stopping_patience and not in_first_phase:
        state.stopped_early = True


def _write_history(workdir: str, state: State) -> None:
    columns = list(state.history[-1])
    lines = [",".join(columns), *(",".join(str(row[column]) for column in columns) for row in state.history)]
    write_text(f"{workdir}/{HISTORY}", "\n".join(lines) + "\n")


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying of them, while entered from the main thread."""

    caught = ""

    def __enter__(self) -> "_Signals":
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *unused: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stopped(self, state: State) -> StoppedError:
        return StoppedError(f"stopped by {self.caught} after step {state.total_steps}; the same command goes on from there")

    def _note(self, number: int, unused_frame: Any) -> None:
        if self.caught == signal.Signals(number).name == "SIGINT":
            raise KeyboardInterrupt
        self.caught = signal.Signals(number).name
