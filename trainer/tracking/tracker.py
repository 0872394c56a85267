"""Record a training run with an experiment tracker: `--track=mlflow` or `--track=wandb`.

The record gets settings, a point per epoch of each curve, metrics with their intervals, report and
artifact. `tracking.json` in the workdir keeps the record's id and what it holds already. So a
run that was stopped continues in the same record, and what could not be sent is sent later. If a
tracker fails after the start, there is a warning, and the run continues.
"""

import contextlib
import csv
import dataclasses
import importlib
import io
import json
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

from trainer import artifact, machine, storage
from trainer.errors import ConfigError, StoppedError
from trainer.files.urls import hide_credentials
from trainer.inference import artifact_copy

RECORD = "tracking.json"
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}
"""The package of each tracker that `--track` names; the extra has the tracker's own name."""
_REPORT, _CURVES = "report.html", "curves.png"

Row = Mapping[str, float]
"""A row of the history: `epoch`, from 1, and figures by their names."""


@dataclasses.dataclass(frozen=True)
class RunStart:
    """Metadata sent to a tracker at the start of a run.

    Attributes:
      name: name of the workdir's folder.
      workdir: folder of the run, local or in a bucket.
      settings: every setting by its name.
      run_id: id of the record that a call before this one began; None for a new one.
    """

    name: str
    workdir: str
    settings: Mapping[str, Any]
    run_id: str | None


class Client(Protocol):
    """A connection to one record of a tracker."""

    run_id: str

    def log_rows(self, rows: Sequence[Row], prefix: str) -> None:
        """Add points to the curves, whose names get a prefix, such as `fold-1/` or nothing."""

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add final figures, such as `test/image/auroc` and `test/image/auroc/low`."""

    def log_files(self, folder: pathlib.Path, model_id: str) -> None:
        """Add `report.html`, `curves.png` and `artifact/` of a local folder."""

    def close(self, state: str) -> None:
        """End this call's part of the record: `finished`, `stopped` or `failed`."""


class Tracker:
    """The record of one run; without a client, it does nothing."""

    def __init__(self, client: Client | None, workdir: str, held: dict[str, Any]):
        self._client = client
        self._workdir = workdir
        self._held = held

    def log_history(self, history: Sequence[Row], fold: str = "") -> None:
        """Add the epochs that the record lacks; an epoch that can't be sent is sent with the next.

        Args:
          history: a row for each epoch since the first.
          fold: name of the network in a cross-validation, such as `fold-1`.
        """
        if self._client is None:
            return
        sent = self._held["epochs"].get(fold, 0)
        if rows := history[sent:]:
            with self._warn_of_failure("the curves"):
                finite = [{k: v for k, v in row.items() if math.isfinite(v)} for row in rows]
                self._client.log_rows(finite, f"{fold}/" if fold else "")
                self._held["epochs"][fold] = len(history)
                self._write()

    def log_results(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics, the report and the artifact of a finished run, once."""
        if self._client is None or self._held["finished"]:
            return
        with self._warn_of_failure("the results"), _copy_results(self._workdir) as folder:
            self._client.log_metrics(flatten_metrics(metrics))
            self._client.log_files(folder, artifact.load(folder / "artifact").model_id)
            self._held["finished"] = True
            self._write()

    def _write(self) -> None:
        storage.write_text(f"{self._workdir}/{RECORD}", json.dumps(self._held, indent=2) + "\n")

    @contextlib.contextmanager
    def _warn_of_failure(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a tracker must not cost hours of training
            logging.warning(
                "%s could not be sent to %s: %s; the same command sends what is missing",
                what,
                self._held["tracker"],
                _quote(error),
            )


def check_installed(tracker: str | None) -> None:
    """Check that the package of a tracker is installed, before anything is written.

    Raises:
      ConfigError: it is not.
    """
    if tracker and not machine.has_packages(tracker):
        raise ConfigError(
            f"--track={tracker} needs the package {PACKAGES[tracker]}; "
            f"{machine.advise_extra(tracker)}"
        )


@contextlib.contextmanager
def track(tracker: str | None, workdir: str, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """Open the record of a run for a block, and end it as the block ends.

    Args:
      tracker: a key of `PACKAGES`; None records nothing.
      settings: every setting by its name.

    Raises:
      ConfigError: the tracker can't be reached as the run begins, the run is recorded by another
        one, or the file that says so is damaged.
    """
    if tracker is None:
        yield Tracker(None, workdir, {})
        return
    check_installed(tracker)
    held = _read_record(tracker, workdir)
    name = workdir.rstrip("/").rpartition("/")[2]
    module = importlib.import_module(f"trainer.tracking.{tracker}_client")
    client: Client | None = None
    try:
        client = module.open_run(RunStart(name, workdir, settings, held["run_id"]))
    except ConfigError:
        raise
    except Exception as error:  # each client has exceptions of its own
        if not held["run_id"]:
            raise ConfigError(
                f"--track={tracker}: no record could be opened "
                f"({_quote(error)}); check the tracker's address and access, or omit the flag"
            ) from error
        logging.warning(
            "the record of the run cannot be opened in %s: %s; the same command sends what is "
            "missing",
            tracker,
            _quote(error),
        )
    if client is None:  # the run began earlier, and goes on without its record
        yield Tracker(None, workdir, {})
        return
    if client.run_id != held["run_id"]:  # the new record lacks what an earlier one has
        held |= {"run_id": client.run_id, "epochs": {}, "finished": False}
    opened = Tracker(client, workdir, held)
    opened._write()
    state = "failed"
    try:
        yield opened
        state = "finished"
    except StoppedError:
        state = "stopped"
        raise
    finally:
        with opened._warn_of_failure("the end of the run"):
            client.close(state)


def _read_record(tracker: str, workdir: str) -> dict[str, Any]:
    contents = storage.read_bytes(f"{workdir}/{RECORD}")
    if contents is None:
        return {"tracker": tracker, "run_id": None, "epochs": {}, "finished": False}
    try:
        held: dict[str, Any] = json.loads(contents)
        named = held["tracker"]
        held = {"run_id": None, "epochs": {}, "finished": False} | held
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{workdir}/{RECORD} is damaged; remove it to begin a new record in {tracker}"
        ) from error
    if named != tracker:
        raise ConfigError(
            f"--track={tracker}: the run in {workdir} is recorded by {named}; name that, "
            f"or remove {workdir}/{RECORD}"
        )
    return held


def _quote(error: Exception) -> str:
    """Return the message of a client's error on one line, without the credentials of its server."""
    return hide_credentials(" ".join(str(error).split())[:300])


def is_recorded(workdir: str) -> bool:
    """Return whether the record of a finished run is complete."""
    contents = storage.read_bytes(f"{workdir}/{RECORD}")
    try:
        return bool(json.loads(contents or b"{}").get("finished"))
    except (ValueError, AttributeError):
        return False


def read_history(workdir: str) -> list[dict[str, float]]:
    """Return the rows of a run's `history.csv`; none where there is no such file."""
    contents = storage.read_bytes(f"{workdir}/history.csv") or b""
    rows = csv.DictReader(io.StringIO(contents.decode()))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def flatten_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of `metrics.json` by their path, `test/image/auroc` for a value.

    An interval follows as `test/image/auroc/low` and `/high`. What is no number is left out.
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        name = prefix.rstrip("/") if key == "value" else f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flatten_metrics(value, f"{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


@contextlib.contextmanager
def _copy_results(workdir: str) -> Iterator[pathlib.Path]:
    """Yield a local folder with report, curves and artifact of a run: the workdir, or a copy."""
    if not storage.is_remote(workdir):
        yield pathlib.Path(workdir)
        return
    with tempfile.TemporaryDirectory() as copied:
        folder = pathlib.Path(copied)
        artifact_copy.download_all(f"{workdir}/artifact", folder / "artifact")
        storage.download(workdir, [_REPORT, _CURVES], folder)
        yield folder
