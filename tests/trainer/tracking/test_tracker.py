"""A run is one record of its tracker, however often it was stopped, in MLflow and W&B."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import mlflow
import pytest
import wandb
from sqlalchemy.engine import URL

from tests.support import commands, small_artifact, wandb_files
from trainer import artifact
from trainer.errors import EXIT_DONE, EXIT_STOPPED, ConfigError, StoppedError
from trainer.tracking import mlflow_client, tracker, wandb_client

SETTINGS = {"config.learning_rate": 1e-3, "config.backbone": "tinynet", "folds": 0}
HISTORY = [{"epoch": k, "loss": 1 / k, "val_auroc": 0.5 + k / 10} for k in (1, 2, 3)]
WITHOUT_SPEED = [{**row, "images_per_second": float("nan")} for row in HISTORY]
METRICS = {
    "test": {"image": {"auroc": {"value": 0.9, "low": 0.8, "high": None}}, "threshold": 0.5},
    "folds": [{"fold": 1}],
}
FLAT = {"test/image/auroc": 0.9, "test/image/auroc/low": 0.8, "test/threshold": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """What a finished run leaves, as far as a tracker takes it."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    small_artifact.make(workdir / "artifact", small_artifact.network())
    (workdir / "report.html").write_text("<h1>Report</h1>")
    (workdir / "curves.png").write_bytes(b"\x89PNG")
    return workdir


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", "the client sets it, and it is undone after the test")
    monkeypatch.delenv("WANDB_DATA_DIR")


def record(kind: str, workdir: pathlib.Path) -> None:
    """Record a run that is stopped after its second epoch, and goes on."""
    with (
        pytest.raises(StoppedError),
        tracker.track(kind, str(workdir), SETTINGS) as tracked,
    ):
        tracked.log_history(WITHOUT_SPEED[:1])
        tracked.log_history(HISTORY[:2])
        raise StoppedError("stopped by SIGTERM")
    with tracker.track(kind, str(workdir), SETTINGS) as tracked:
        tracked.log_history(HISTORY[:2])
        tracked.log_history(HISTORY)
        tracked.log_history(HISTORY[:2], "fold-2")
        tracked.log_results(METRICS)
        tracked.log_results(METRICS)
    assert tracker.is_recorded(str(workdir))


def copy(finished: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
    workdir.mkdir()
    for path in finished.iterdir():
        (workdir / path.name).symlink_to(path)
    return workdir


def test_mlflow_without_a_server(finished, tmp_path):
    workdir = copy(finished, tmp_path / "run")
    record("mlflow", workdir)
    client = mlflow.MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    check_mlflow(client, workdir, SETTINGS, {"": HISTORY, "fold-2/": HISTORY[:2]}, FLAT)


def test_the_artifact_of_a_remote_run_is_sent_with_its_model_cards(finished, tmp_path, monkeypatch):
    database = f"sqlite:///{tmp_path}/all.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    # For TensorFlow's file layer one URI is like another; a bucket differs in the scheme.
    with tracker.track("mlflow", f"file://{finished}", SETTINGS) as tracked:
        tracked.log_results(METRICS)
    (finished / tracker.RECORD).unlink()
    (sent,) = tmp_path.glob("mlflow/*/artifacts/artifact")
    names = {path.name for path in (finished / "artifact").rglob("*") if path.is_file()}
    assert {path.name for path in sent.rglob("*") if path.is_file()} == names


def record_once(workdir: pathlib.Path) -> None:
    with tracker.track("mlflow", str(workdir), SETTINGS) as tracked:
        tracked.log_history(HISTORY)
        tracked.log_results(METRICS)


def test_files_of_several_runs_lie_beside_their_mlflow_database(finished, tmp_path, monkeypatch):
    database = tmp_path / "50% done" / "all.db"
    database.parent.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(URL.create("sqlite", database=str(database))))
    for name in ("first", "second"):
        record_once(copy(finished, tmp_path / name))
        assert not (tmp_path / name / "mlflow").exists()
    assert len(list(database.parent.glob("mlflow/*/artifacts/report.html"))) == 2


def test_a_workdir_that_was_moved_gets_a_complete_mlflow_record_of_its_own(finished, tmp_path):
    old, new = copy(finished, tmp_path / "old"), tmp_path / "run"
    with tracker.track("mlflow", str(old), SETTINGS) as tracked:
        tracked.log_history(HISTORY[:2])
    old.rename(new)
    for _ in range(2):  # the second call continues the new record
        record_once(new)
    assert not old.exists()
    client = mlflow.MlflowClient(f"sqlite:///{new}/mlflow.db")
    check_mlflow(client, new, SETTINGS, {"": HISTORY}, FLAT, experiment=f"humerus in {new}")


def check_mlflow(
    client, workdir, settings, histories, metrics, experiment: str = "humerus"
) -> None:
    """Check that the only run of the experiment holds all that the workdir holds, once."""
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {name: str(value) for name, value in settings.items()}
    for prefix, history in histories.items():
        for name in set(history[0]) - {"epoch"}:
            points = client.get_metric_history(run.info.run_id, f"{prefix}{name}")
            assert [(point.step, point.value) for point in points] == [
                (int(row["epoch"]), row[name]) for row in history
            ]
    assert {name: run.data.metrics[name] for name in metrics} == metrics
    described = artifact.load(workdir / "artifact")
    assert run.data.tags["model_id"] == described.model_id
    fetched = pathlib.Path(client.download_artifacts(run.info.run_id, "artifact"))
    assert artifact.load(fetched) == described
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {
        "artifact",
        "curves.png",
        "report.html",
    }


def test_wandb_offline(finished, tmp_path):
    workdir = copy(finished, tmp_path / "run")
    record("wandb", workdir)
    wandb.teardown()  # ends the process that writes the files
    found = wandb_files.describe(wandb_files.read_runs(workdir))
    assert found["ids"] == {json.loads((workdir / tracker.RECORD).read_text())["run_id"]}
    assert found["exit_codes"] == [1, 0]
    assert SETTINGS.items() <= found["config"].items()
    curves = [{k: row[k] for k in HISTORY[0]} for row in found["rows"] if "epoch" in row]
    assert curves == HISTORY
    of_fold = [row["fold-2/loss"] for row in found["rows"] if "fold-2/epoch" in row]
    assert of_fold == [row["loss"] for row in HISTORY[:2]]
    assert FLAT.items() <= found["summary"].items()
    described = artifact.load(finished / "artifact")
    assert found["artifact"] == {*described.files, artifact.MODEL_JSON, "curves.png"}
    assert found["copies"] and all(workdir in path.parents for path in found["copies"])
    (report,) = workdir.glob("wandb/offline-run-*/files/media/html/*.html")
    assert report.read_text() == "<h1>Report</h1>"


def test_a_tracker_that_fails_later_costs_a_warning_and_is_sent_what_it_lacks(tmp_path, caplog):
    class Failing:
        run_id, rows, fails = "id", [], True

        def log_rows(self, rows, prefix):
            if self.fails:
                raise OSError("no route to host")
            self.rows += rows

    client = Failing()
    held = {"tracker": "mlflow", "run_id": "id", "epochs": {}, "finished": False}
    tracked = tracker.Tracker(client, str(tmp_path), held)
    tracked.log_history(HISTORY[:1])
    assert "the curves could not be sent to mlflow: no route to host" in caplog.text
    client.fails = False
    tracked.log_history(HISTORY[:2])
    assert client.rows == HISTORY[:2]


def test_what_is_refused_before_a_run(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://user:s3cret@127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(ConfigError, match="--track=mlflow: no record could be opened") as caught,
        tracker.track("mlflow", str(tmp_path), SETTINGS),
    ):
        pass
    assert "***@127.0.0.1" in str(caught.value) and "s3cret" not in str(caught.value)
    # A run that has begun goes on without its record.
    record = {"tracker": "mlflow", "run_id": "a", "epochs": {"": 1}, "finished": False}
    (tmp_path / tracker.RECORD).write_text(json.dumps(record))
    with tracker.track("mlflow", str(tmp_path), SETTINGS) as tracked:
        tracked.log_history(HISTORY)
    assert json.loads((tmp_path / tracker.RECORD).read_text()) == record
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    in_bucket = tracker.RunStart("run", "gs://bucket/run", SETTINGS, None)
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        mlflow_client.open_run(in_bucket)
    with pytest.raises(ConfigError, match=r"whose path has a % or \?; rename the folder"):
        mlflow_client.open_run(tracker.RunStart("run", str(tmp_path / "a?b"), SETTINGS, None))
    with pytest.raises(ConfigError, match="unset WANDB_MODE"):
        wandb_client.open_run(in_bucket)
    (tmp_path / tracker.RECORD).write_text('{"tracker": "wandb", "run_id": "a"}')
    with (
        pytest.raises(ConfigError, match="is recorded by wandb; name that, or remove"),
        tracker.track("mlflow", str(tmp_path), SETTINGS),
    ):
        pass
    for damaged in ("", "[]", "{}", '{"tracker"'):
        (tmp_path / tracker.RECORD).write_text(damaged)
        assert not tracker.is_recorded(str(tmp_path))
        with (
            pytest.raises(ConfigError, match=r"tracking\.json is damaged; remove it"),
            tracker.track("mlflow", str(tmp_path), SETTINGS),
        ):
            pass
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install .* '\.\[wandb\]'"):
        tracker.check_installed("wandb")


@contextlib.contextmanager
def serve_mlflow(folder: pathlib.Path) -> Iterator[str]:
    """Run MLflow's own server on loopback, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--backend-store-uri=sqlite:///{folder}/server.db", "--workers=1"]
    command += [f"--artifacts-destination={folder}/files"]
    address = f"http://127.0.0.1:{port}"
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=quiet, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.mark.slow
def test_a_run_that_is_stopped_is_one_record_on_a_real_server(tmp_path):
    data_dir, workdir = commands.prepared(tmp_path), tmp_path / "run"
    with serve_mlflow(tmp_path) as address:
        environment = {"MLFLOW_TRACKING_URI": address}
        stopped = commands.start(data_dir, workdir, "--track=mlflow", environment=environment)
        code = commands.stop_after(stopped, workdir, 4, signal.SIGTERM)
        assert code == EXIT_STOPPED, commands.log(workdir)[-3000:]
        for _ in range(2):  # the second finds a finished run
            again = commands.start(data_dir, workdir, "--track=mlflow", environment=environment)
            assert again.wait(300) == EXIT_DONE, commands.log(workdir)[-3000:]
        rows = list(csv.DictReader((workdir / "history.csv").open()))
        names = ("epoch", "loss", "val_auroc", "learning_rate")
        history = [{name: float(row[name]) for name in names} for row in rows]
        settings = json.loads((workdir / "config.json").read_text())
        metrics = json.loads((workdir / "metrics.json").read_text())
        client = mlflow.MlflowClient(address)
        flat = tracker.flatten_metrics(metrics)
        assert flat["test/image/auroc"] == metrics["test"]["image"]["auroc"]["value"]
        check_mlflow(client, workdir, settings, {"": history}, flat)
