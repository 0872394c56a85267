"""Train epoch by epoch: validate, keep the best weights, stop early, continue after a kill."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import sklearn.metrics
import tensorflow as tf
from absl import logging

from trainer.dataset.augmentation import Augmentation
from trainer.dataset.input_pipeline import count_steps_per_epoch
from trainer.dataset.prepared_split import Split
from trainer.errors import ConfigError, StoppedError, TrainingDivergedError
from trainer.network import model as model_lib
from trainer.network.serving import Member
from trainer.program import telemetry
from trainer.program.signals import RecordedSignals
from trainer.publishing.export import copy_in_float32
from trainer.publishing.trained import Origin
from trainer.storage import write_text
from trainer.training import strategy as strategy_lib
from trainer.training.checkpoints import Checkpoints, remove_leftovers
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.job import TrainingJob
from trainer.training.loop import Interrupted, Loop, State
from trainer.training.progress import ProgressReporter
from trainer.training.training_step import Objective

HISTORY = "history.csv"
_SHOWN_OF_EACH_CLASS = 4


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that one training run is made of, see `build_run.build_run`."""

    job: TrainingJob
    model: keras.Model
    architecture: model_lib.Architecture
    origin: Origin
    loop: Loop
    average: WeightsAverage
    objective: Objective
    train: Split
    validation: Split

    @property
    def is_chief(self) -> bool:
        """Return whether this host writes the results."""
        return strategy_lib.is_chief(self.loop.strategy)

    def convert_to_float32(self) -> "Run":
        """Return the trained run with its network in float32, as the artifact has it.

        So the figures of a run, and the operating point fitted on them, are those of its artifact.
        """
        if self.job.settings.precision == "float32":
            return self
        strategy = self.loop.strategy
        with strategy.scope():
            model = copy_in_float32(Member(self.model, self.architecture)).model
            average = WeightsAverage([], 0)
            loop = Loop(model, strategy, [], self.objective, average)
        return dataclasses.replace(self, model=model, loop=loop, average=average)

    def predict(
        self,
        split: Split,
        mirrored: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Return the logits of a split, float32 [N], see `Loop.predict`."""
        settings = self.job.settings
        at_once = settings.global_batch_size // settings.gradient_accumulation_steps
        return self.loop.predict(split, at_once, mirrored, should_stop)


class Journal:
    """Saves and reports the progress of a run: the chief writes, all hosts read."""

    def __init__(self, run: Run):
        workdir, folder = run.job.workdir, f"{run.job.workdir}/checkpoints"
        if run.is_chief:
            for place in (workdir, folder, f"{folder}/best"):
                remove_leftovers(place)
        self._run = run
        self._checkpoints = Checkpoints(
            folder, run.loop.variables(), run.job.settings.keep_checkpoints, run.is_chief
        )
        self._best = Checkpoints(f"{folder}/best", run.loop.weights(), 1, run.is_chief)
        self.progress = ProgressReporter(
            workdir, run.loop.epochs, run.is_chief, trace=run.job.profile
        )

    def restore(self) -> State:
        """Restore the newest readable checkpoint and return the state of the run."""
        return State(**self._restore(self._checkpoints, "total_steps"))

    def restore_best(self) -> bool:
        """Restore the weights of the best epoch; return False where no epoch was trained."""
        return bool(self._restore(self._best, "epoch"))

    def after_step(self, state: State, measured: Mapping[str, float]) -> None:
        """Report the last call of the device, and save a checkpoint where one is due."""
        settings = self._run.job.settings
        self.progress.report_step(state.step, state.total_steps, measured)
        telemetry.report_progress(step=state.total_steps)
        if state.total_steps % settings.checkpoint_every_steps < settings.steps_per_execution:
            self.save(state)

    def save(self, state: State) -> None:
        """Save a checkpoint, after everything that was reported up to it."""
        self.progress.flush()
        self._checkpoints.save(state.total_steps, dataclasses.asdict(state))

    def save_best(self, epoch: int) -> None:
        """Save the current weights in place of those of an earlier epoch."""
        self._best.save(epoch, {"epoch": epoch})

    def end_epoch(self, state: State, improved: bool) -> None:
        """Report the epoch that has just been finished, and save a checkpoint."""
        row = state.history[-1]
        if self._run.is_chief:
            _write_history(self._run.job.workdir, state)
        self.progress.end_epoch(row, state.total_steps, improved)
        self.save(state)
        gauges = {name: value for name, value in row.items() if name in telemetry.METRICS}
        telemetry.report_progress(**gauges)

    def close(self) -> None:
        """Close what was opened, however the run ended."""
        self.progress.close()

    def _restore(self, checkpoints: Checkpoints, key: str) -> Mapping[str, Any]:
        state = checkpoints.restore() or {}
        workdir = self._run.job.workdir
        strategy_lib.check_shared(self._run.loop.strategy, state.get(key, -1), workdir)
        return state


def fit(
    run: Run, on_history: Callable[[Sequence[Mapping[str, float]]], None] = lambda history: None
) -> State:
    """Train from the state that the run is in to its end, and leave the best weights in the model.

    Args:
      on_history: is given the history at the start, and after every epoch once it is saved.

    Raises:
      StoppedError: this host or another got SIGTERM or SIGINT; the checkpoint is written.
      TrainingDivergedError: the loss is no longer a number.
      ConfigError: the hosts don't share the workdir, or there is no epoch to train.
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
        if not journal.restore_best():
            raise ConfigError(
                f"{run.job.workdir}: no epoch was trained; set --config.epochs to 1 or more"
            )
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
        return {"val_loss": float("nan"), "val_accuracy": float("nan"), "val_auroc": float("nan")}
    loss = run.objective(tf.constant(labels, tf.float32), tf.constant(logits)).numpy()
    if not np.isfinite(loss).all():
        raise TrainingDivergedError(
            "the validation loss is not a number; lower the learning rate in a new --workdir"
        )
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


def _write_history(workdir: str, state: State) -> None:
    columns = list(state.history[-1])
    lines = [
        ",".join(columns),
        *(",".join(str(row[column]) for column in columns) for row in state.history),
    ]
    write_text(f"{workdir}/{HISTORY}", "\n".join(lines) + "\n")


def _describe_stop(signal_name: str, state: State, is_chief: bool) -> StoppedError:
    """Return the error that ends a run that was asked to stop."""
    cause = signal_name or "a signal to another host"
    then = (
        "the same command continues from there"
        if is_chief
        else "the first host has written the checkpoint"
    )
    return StoppedError(f"stopped by {cause} after step {state.total_steps}; {then}")
