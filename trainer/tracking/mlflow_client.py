"""Record a run with MLflow, on a server or in a database of the workdir."""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from trainer import storage
from trainer.errors import ConfigError
from trainer.tracking.tracker import Row, RunStart

# MLflow reads these when it is imported. By default it reports its use to its makers, and repeats a
# request that fails for minutes, in which training would stand still.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from sqlalchemy.engine import make_url

_EXPERIMENT = "humerus"
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
_LONGEST_PARAM = 500
_STATUS = {
    "finished": RunStatus.FINISHED,
    "stopped": RunStatus.KILLED,
    "failed": RunStatus.FAILED,
}


def open_run(run_start: RunStart) -> "MlflowRun":
    """Start a run, or continue an earlier one.

    `MLFLOW_TRACKING_URI` names the server; without it, the record is `mlflow.db` in a local
    workdir. `MLFLOW_EXPERIMENT_NAME` names the experiment, by default `humerus`. If the workdir
    was moved, a new record begins: the earlier one would still write to the former place.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or _name_database(run_start.workdir)
    place = _choose_artifact_folder(uri)
    client = MlflowClient(uri)
    if run_start.run_id is not None and (given or _keeps_files(client, run_start.run_id, place)):
        client.update_run(run_start.run_id, status="RUNNING")
        return MlflowRun(client, run_start.run_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    if (
        not given
        and experiment is not None
        and not _is_same_folder(experiment.artifact_location, place)
    ):
        name = f"{name} in {pathlib.Path(run_start.workdir).absolute()}"
        experiment = client.get_experiment_by_name(name)
    experiment_id = (
        experiment.experiment_id
        if experiment is not None
        else client.create_experiment(name, artifact_location=place)
    )
    return MlflowRun(client, _begin(client, run_start, experiment_id))


def _name_database(workdir: str) -> str:
    """Return the address of the database in a local workdir, and make that folder.

    Raises:
      ConfigError: the workdir can't hold one.
    """
    if storage.is_remote(workdir):
        raise ConfigError(
            "--track=mlflow: no server is named, and a database can't lie in a bucket; set "
            "MLFLOW_TRACKING_URI, or use a local --workdir"
        )
    folder = pathlib.Path(workdir).absolute()
    if set("%?") & set(str(folder)):  # MLflow would write to a folder of another name
        raise ConfigError(
            f"--track=mlflow: MLflow can't keep a database in {folder}, whose path has a % or ?; "
            "rename the folder, or set MLFLOW_TRACKING_URI"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/mlflow.db"


def _choose_artifact_folder(uri: str) -> str | None:
    """Return where the files of a new experiment go: beside an SQLite database.

    A server chooses by itself. For a database, MLflow would choose the current folder.
    """
    database = make_url(uri).database if uri.startswith("sqlite") else None
    if not database or database == ":memory:":
        return None
    # MLflow treats the place as a URL and decodes it.
    return str(pathlib.Path(database).absolute().parent / "mlflow").replace("%", "%25")


def _keeps_files(client: MlflowClient, run_id: str, place: str | None) -> bool:
    """Return whether a run keeps its files in a place."""
    of_run = client.get_run(run_id).info.artifact_uri or ""
    return place is not None and _is_same_folder(of_run.removesuffix(f"/{run_id}/artifacts"), place)


def _is_same_folder(one: str, other: str | None) -> bool:
    """Return whether two paths name one folder, however they are spelt."""
    return other is not None and os.path.realpath(one) == os.path.realpath(other)


def _begin(client: MlflowClient, run_start: RunStart, experiment_id: str) -> str:
    """Begin a run, with its settings as parameters, and return its id."""
    run_id = client.create_run(experiment_id, run_name=run_start.name).info.run_id
    params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in run_start.settings.items()]
    for start in range(0, len(params), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
    return run_id


class MlflowRun:
    """A run of MLflow; see `tracker.Client`."""

    def __init__(self, client: MlflowClient, run_id: str):
        self._client = client
        self.run_id = run_id

    def log_rows(self, rows: Sequence[Row], prefix: str) -> None:
        now = int(time.time() * 1000)
        self._log(
            [
                Metric(f"{prefix}{name}", value, now, int(row["epoch"]))
                for row in rows
                for name, value in row.items()
                if name != "epoch"
            ]
        )

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._log([Metric(name, value, now, 0) for name, value in metrics.items()])

    def log_files(self, folder: pathlib.Path, model_id: str) -> None:
        for name in ("report.html", "curves.png"):
            self._client.log_artifact(self.run_id, str(folder / name))
        self._client.log_artifacts(self.run_id, str(folder / "artifact"), "artifact")
        self._client.log_batch(self.run_id, tags=[RunTag("model_id", model_id)])

    def close(self, state: str) -> None:
        self._client.set_terminated(self.run_id, RunStatus.to_string(_STATUS[state]))

    def _log(self, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
