"""Epochs: train, validate, keep the best weights, stop when nothing improves, and be ready to be killed at any step."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
import sklearn.metrics
import tensorflow as tf
from absl import logging

from trainer.dataset.input_pipeline import Augmentation, Split, steps_per_epoch
from trainer.errors import ConfigError, StoppedError, TrainingDivergedError
from trainer.program import telemetry
from trainer.storage import write_text
from trainer.training import strategy as strategy_lib
from trainer.training.checkpoints import Checkpoints, sweep
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.loop import Interrupted, Loop, Objective, State
from trainer.training.progress import Watch

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
    profile: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether this host writes what lasts."""
        return strategy_lib.is_chief(self.loop.strategy)


class Journal:
    """What is kept of a run and shown of it while it goes on; all hosts read it, the chief writes it."""

    def __init__(self, run: Run, config: ml_collections.ConfigDict):
        folder = f"{run.workdir}/checkpoints"
        if run.is_chief:
            for place in (run.workdir, folder, f"{folder}/best"):
                sweep(place)
        self._run = run
        self._config = config
        self._checkpoints = Checkpoints(
            folder, run.loop.variables(), config.keep_checkpoints, run.is_chief
        )
        self._best = Checkpoints(f"{folder}/best", run.loop.weights(), 1, run.is_chief)
        self.watch = Watch(run.workdir, run.loop.epochs, run.is_chief, run.profile)

    def restore(self) -> State:
        """Where the run stands, with all variables as they were then."""
        return State(**self._restore(self._checkpoints, "total_steps"))

    def restore_best(self) -> bool:
        """The weights of the best epoch; False where no epoch was trained."""
        return bool(self._restore(self._best, "epoch"))

    def after_step(self, state: State, measured: Mapping[str, float]) -> None:
        """Between calls of the device: tells of the last one, and saves where it is time to."""
        self.watch.step(state.step, state.total_steps, measured)
        telemetry.progress(step=state.total_steps)
        if (
            state.total_steps % self._config.checkpoint_every_steps
            < self._config.steps_per_execution
        ):
            self.save(state)

    def save(self, state: State) -> None:
        """A checkpoint, behind which nothing that led to it gets lost."""
        self.watch.flush()
        self._checkpoints.save(state.total_steps, dataclasses.asdict(state))

    def save_best(self, epoch: int) -> None:
        """The weights as they are, in place of those of an earlier epoch."""
        self._best.save(epoch, {"epoch": epoch})

    def end_epoch(self, state: State, improved: bool) -> None:
        """Tells of the epoch that was the last one to be finished, and saves."""
        if self._run.is_chief:
            _write_history(self._run.workdir, state)
        self.watch.end_epoch(state.history[-1], state.total_steps, improved)
        self.save(state)
        telemetry.progress(
            **{
                name: value
                for name, value in state.history[-1].items()
                if name in telemetry.METRICS
            }
        )

    def close(self) -> None:
        """Whatever happened."""
        self.watch.close()

    def _restore(self, checkpoints: Checkpoints, key: str) -> Mapping[str, Any]:
        state = checkpoints.restore() or {}
        strategy_lib.check_shared(self._run.loop.strategy, state.get(key, -1), self._run.workdir)
        return state


def fit(run: Run, config: ml_collections.ConfigDict) -> State:
    """Trains from wherever the run stands to its end and leaves the best weights in the model.

    Raises:
      StoppedError: SIGTERM or SIGINT came, to this host or another; the checkpoint is written.
      TrainingDivergedError: the loss is no longer a number.
      ConfigError: the hosts don't share the workdir, or there is no epoch to train.
    """
    with contextlib.closing(Journal(run, config)) as journal, _Signals() as signals:
        state = journal.restore()
        if state.total_steps:
            logging.info("Going on from step %d (epoch %d).", state.total_steps, state.epoch + 1)
        try:
            while state.epoch < run.loop.epochs and not state.stopped_early:
                _epoch(run, config, state, journal, signals.came)
            # Nobody goes on before the chief has come here too, and so has written the best weights.
            if any(strategy_lib.on_all_hosts(run.loop.strategy, signals.came())):
                raise Interrupted
        except Interrupted:
            journal.save(state)
            strategy_lib.leave_together(run.loop.strategy)
            raise signals.stopped(state, run.is_chief) from None
        if not journal.restore_best():
            raise ConfigError(
                f"{run.workdir}: no epoch was trained; set --config.epochs to 1 or more"
            )
    return state


def _epoch(
    run: Run,
    config: ml_collections.ConfigDict,
    state: State,
    journal: Journal,
    stopping: Callable[[], bool],
) -> None:
    journal.watch.begin_epoch(
        state.epoch, state.step, steps_per_epoch(len(run.train), config.global_batch_size)
    )
    trained = run.loop.train_epoch(
        run.train,
        state,
        config.global_batch_size,
        augmentation=Augmentation(**config.augmentation),
        seed=config.seed,
        steps_per_execution=config.steps_per_execution,
        after_step=journal.after_step,
        stopping=stopping,
    )
    with run.average.swapped_in():
        row = {
            "epoch": state.epoch + 1,
            **trained,
            **_validate(run, config, state, journal.watch, stopping),
        }
        row["criterion"] = _criterion([*state.history, row], config)
        improved = all(row["criterion"] > earlier["criterion"] for earlier in state.history)
        if improved:
            journal.save_best(state.epoch)
    state.finish_epoch(row)
    _react(state, config)
    journal.end_epoch(state, improved)


def _validate(
    run: Run,
    config: ml_collections.ConfigDict,
    state: State,
    watch: Watch,
    stopping: Callable[[], bool],
) -> dict[str, float]:
    """Loss, accuracy at 0.5 and AUROC on the validation split; AUROC is NaN where it has one class only."""
    logits, labels = (
        run.loop.predict(run.validation, config.global_batch_size, stopping=stopping),
        run.validation.labels,
    )
    if not len(labels):
        return {"val_loss": float("nan"), "val_accuracy": float("nan"), "val_auroc": float("nan")}
    loss = run.objective(tf.constant(labels, tf.float32), tf.constant(logits)).numpy()
    if not np.isfinite(loss).all():
        raise TrainingDivergedError(
            "the validation loss is not a number; lower the learning rate in a new --workdir"
        )
    if run.is_chief:
        shown = run.validation.images[_shown(labels)]
        watch.show_validation(logits, labels, (shown, run.loop.maps(shown)), state.total_steps)
    auroc = (
        sklearn.metrics.roc_auc_score(labels, logits)
        if 0 < labels.sum() < len(labels)
        else float("nan")
    )
    return {
        "val_loss": float(loss.mean()),
        "val_accuracy": float(((logits > 0) == labels).mean()),
        "val_auroc": float(auroc),
    }


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
    if (
        config.early_stopping_patience
        and stale >= config.early_stopping_patience
        and not in_first_phase
    ):
        state.stopped_early = True


def _write_history(workdir: str, state: State) -> None:
    columns = list(state.history[-1])
    lines = [
        ",".join(columns),
        *(",".join(str(row[column]) for column in columns) for row in state.history),
    ]
    write_text(f"{workdir}/{HISTORY}", "\n".join(lines) + "\n")


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying of them, while entered from the main thread."""

    _caught = ""

    def __enter__(self) -> "_Signals":
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: Any, *unused: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._caught and kind is None:  # when there was nothing left to stop here
            signal.raise_signal(signal.Signals[self._caught])

    def came(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self._caught)

    def stopped(self, state: State, is_chief: bool) -> StoppedError:
        """The sentence to end with."""
        asked = self._caught or "a signal to another host"
        then = (
            "the same command goes on from there"
            if is_chief
            else "the first host has written the checkpoint"
        )
        return StoppedError(f"stopped by {asked} after step {state.total_steps}; {then}")

    def _note(self, number: int, unused_frame: Any) -> None:
        if self._caught == signal.Signals(number).name == "SIGINT":
            raise KeyboardInterrupt
        self._caught = signal.Signals(number).name
