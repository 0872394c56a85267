"""Save the progress of a run as checkpoints, and report it: history, TensorBoard, gauges."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.errors import DataError
from trainer.program import telemetry
from trainer.storage import write_text
from trainer.training import strategy as strategy_lib
from trainer.training.checkpoints import Checkpoints, remove_leftovers, remove_partial_files
from trainer.training.loop import State
from trainer.training.progress import ProgressReporter
from trainer.training.run import Run

HISTORY = "history.csv"


class Journal:
    """Saves and reports the progress of a run: the chief writes, all hosts read."""

    def __init__(self, run: Run):
        workdir, folder = run.job.workdir, f"{run.job.workdir}/checkpoints"
        if run.is_chief:
            remove_partial_files(workdir)
            for place in (folder, f"{folder}/best"):
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

    def restore_best(self) -> None:
        """Restore the weights of the best epoch.

        Raises:
          DataError: they are missing or damaged.
        """
        if not self._restore(self._best, "epoch"):
            folder = f"{self._run.job.workdir}/checkpoints"
            raise DataError(
                f"{folder}/best lacks the weights of the best epoch; remove {folder} to start again"
            )

    def after_step(self, state: State, measured: Mapping[str, float]) -> None:
        """Report the last compiled call, and save a checkpoint where one is due."""
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


def _write_history(workdir: str, state: State) -> None:
    columns = list(state.history[-1])
    lines = [
        ",".join(columns),
        *(",".join(str(row[column]) for column in columns) for row in state.history),
    ]
    write_text(f"{workdir}/{HISTORY}", "\n".join(lines) + "\n")
