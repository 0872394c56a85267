"""Train the trials of a sweep on this machine, one after the other, and compare them."""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from trainer.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_STOPPED,
    ConfigError,
    DataError,
    StoppedError,
    TrialError,
)
from trainer.evaluation import run_table
from trainer.options import SweepOptions
from trainer.program import run_lock, telemetry
from trainer.program.signals import RecordedSignals
from trainer.publishing import artifact_folder, compare_runs
from trainer.publishing.results import SETTINGS
from trainer.training import sweeps
from trainer.training.checkpoints import read_settings

_POLL_SECONDS = 0.2
_TRAIN = (
    "import sys; from trainer.program import signals; signals.stop_with_parent(); "
    "from trainer.main import train; sys.exit(train(['humerus-train'] + sys.argv[1:]))"
)


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
      table: what `run_table.compare_runs` returned; None where no trial is finished.
      settings: by the name of a finished trial, those that differ between them, as its run
        recorded them.
      missing: names of the trials that have no artifact, or failed in this call.
      failed: by the name of a trial that failed in this call, its exit code; minus the number of
        the signal that ended it.
    """

    table: Mapping[str, Any] | None
    settings: Mapping[str, Sequence[str]]
    missing: Sequence[str]
    failed: Mapping[str, int]

    def describe_failure(self) -> Exception | None:
        """Return the error that ends the command where trials failed, else None.

        It has the exit code 2 or 3 only if every failed trial ended with one of them: then another
        try is useless.
        """
        if not self.failed:
            return None
        named = ", ".join(f"{name} with exit code {code}" for name, code in self.failed.items())
        message = (
            f"{len(self.failed)} of the trials failed ({named}); their messages stand above, and "
            "the same command tries them again"
        )
        if set(self.failed.values()) == {EXIT_CONFIG}:
            return ConfigError(message)
        if set(self.failed.values()) <= {EXIT_CONFIG, EXIT_DATA}:
            return DataError(message)
        return TrialError(message)

    def __str__(self) -> str:
        parts = [run_table.format_table(self.table, self.settings)] if self.table else []
        if self.missing:
            parts.append(f"not finished: {', '.join(self.missing)}")
        return "\n".join(
            [*parts, *(f"warning: {each}" for each in (self.table or {}).get("warnings", ()))]
        )


def run(options: SweepOptions) -> SweepResult:
    """Train the trials that are not finished, unless only the table is asked for; compare all.

    A trial that fails does not keep the others from being trained.

    Raises:
      ConfigError: the sweep is wrong, or another one trains in its folder.
      DataError: only the table is asked for, and no trial is finished.
      StoppedError: a signal ended a trial.
    """
    trials = sweeps.read(options.sweep)
    workdir = options.workdir.rstrip("/")
    failed: dict[str, int] = {}
    if not options.table_only:
        with run_lock.hold(workdir, "humerus-sweep"):
            failed = _train_all(trials, options, telemetry.hand_over())
    finished = {
        trial.name: path
        for trial in trials
        if trial.name not in failed
        and artifact_folder.is_complete(path := f"{workdir}/{trial.name}/artifact")
    }
    if not finished and not failed:
        raise DataError(
            f"no trial of {options.sweep} is finished in {workdir}; train them first, without "
            "--table_only"
        )
    return SweepResult(
        run_table.compare_runs(finished, options.data_dir, options.split) if finished else None,
        _list_differing(workdir, list(finished)),
        [trial.name for trial in trials if trial.name not in finished],
        failed,
    )


def _list_differing(workdir: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the settings that differ between runs, such as `dropout=0.5`, by the run's name.

    They are those that a run recorded: the file of the sweep may have been changed since.
    """
    differing = compare_runs.list_differing(
        [read_settings(f"{workdir}/{name}/{SETTINGS}") or {} for name in names]
    )
    return {
        name: [f"{key}={values[i]}" for key, values in differing] for i, name in enumerate(names)
    }


def _train_all(
    trials: Sequence[sweeps.Trial], options: SweepOptions, reporting: Sequence[str]
) -> dict[str, int]:
    """Train each trial in a process of its own, which frees its memory and devices.

    Args:
      reporting: the flags of `telemetry`.

    Returns:
      The exit codes of the trials that failed, by name.
    """
    failed = {}
    for index, trial in enumerate(trials):
        logging.info("trial %d of %d: %s", index + 1, len(trials), trial.name)
        flags = [
            f"--data_dir={options.data_dir}",
            f"--workdir={options.workdir}",
            f"--sweep={options.sweep}",
            f"--sweep_line={index}",
            *reporting,
        ]
        code = _run([sys.executable, "-c", _TRAIN, *flags])
        if code == EXIT_STOPPED:
            raise StoppedError("a signal ended a trial; run the same command to continue")
        if code:
            logging.error("trial %s ended with exit code %d", trial.name, code)
            failed[trial.name] = code
    return failed


def _run(command: Sequence[str]) -> int:
    """Run a command and return its exit code; a signal to this process is passed on, and its end
    waited for, however long its checkpoint takes.

    Its standard input closes when this process ends, as `signals.stop_with_parent` expects.
    """
    with RecordedSignals() as signals:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            while not signals.arrived():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_SECONDS)
        finally:
            process.terminate()  # nothing, where it has ended
            process.wait()
        return EXIT_STOPPED
