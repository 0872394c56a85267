"""Train on a disk that fills up, into no folder, on data that vanish, and in a bucket."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import bucket_server, commands, small_disk, small_run
from tests.support.commands import ROOT, finish, log, start, stop_after
from tests.trainer.training.test_train import assert_same
from trainer.errors import EXIT_CONFIG, EXIT_DATA, EXIT_DONE, EXIT_FAILURE

_PREPARE = "import sys; from trainer.main import prepare; sys.exit(prepare())"


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(data_dir, workdir) == EXIT_DONE, log(workdir)[-3000:]
    return workdir


def errors(workdir: pathlib.Path) -> list[str]:
    assert "Traceback" not in log(workdir), log(workdir)[-5000:]
    return [line for line in log(workdir).splitlines() if line.startswith("humerus-train: ")]


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 250, 1000])
def test_a_full_disk_ends_the_run_with_a_sentence_and_more_room_lets_it_go_on(
    data_dir, undisturbed, tmp_path, room
):
    """Full at the first checkpoint, at a later one, and at the export."""
    with small_disk.mounted(tmp_path / "disk", 4000) as disk:
        filler = small_disk.fill(disk, 4000 - 16 - room)
        workdir = disk / "run"
        log_file = workdir.with_suffix(".log")
        log_file.symlink_to(tmp_path / "run.log")
        assert finish(data_dir, workdir) == EXIT_FAILURE, log(workdir)[-3000:]
        (said,) = errors(workdir)
        assert "can't be written (the disk is full)" in said or "No space left on device" in said
        assert not (workdir / "metrics.json").exists()
        filler.unlink()
        assert finish(data_dir, workdir) == EXIT_DONE, log(workdir)[-3000:]
        assert_same(workdir, undisturbed)


@pytest.mark.slow
def test_a_checkpoint_folder_that_cannot_be_one(data_dir, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "checkpoints").write_text("in the way")
    assert finish(data_dir, workdir) == EXIT_FAILURE
    (said,) = errors(workdir)
    assert "checkpoints" in said and "can't be written" in said


@pytest.mark.slow
def test_data_that_vanish_are_not_missed_until_the_next_start(data_dir, undisturbed, tmp_path):
    copy, workdir = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(data_dir, copy)
    assert stop_after(start(str(copy), workdir), workdir, 2, signal.SIGKILL) == -signal.SIGKILL
    run = start(str(copy), workdir)
    while "Continuing from step" not in log(workdir) and run.poll() is None:
        time.sleep(0.01)
    shutil.rmtree(copy)
    assert run.wait(timeout=300) == EXIT_DONE, log(workdir)[-3000:]
    assert_same(workdir, undisturbed)
    assert finish(str(copy), tmp_path / "another") == EXIT_DATA
    (said,) = errors(tmp_path / "another")
    assert str(copy) in said


@pytest.mark.slow
def test_prepared_trained_killed_and_finished_in_a_bucket(undisturbed, tmp_path, monkeypatch):
    with bucket_server.running(tmp_path) as server:
        monkeypatch.setattr(commands, "COMMAND", commands.SHORT_LEASE + commands.COMMAND)
        for name, value in {
            **server.environment,
            **server.tensorflow_environment,
            "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
        }.items():
            monkeypatch.setenv(name, value)
        uri = server.make_bucket("training")
        source = small_run.write_source(tmp_path / "source")
        for path in source.parent.iterdir():
            server.put("training", f"source/{path.name}", path.read_bytes())
        command = [
            sys.executable,
            "-c",
            _PREPARE,
            f"--source={uri}/source/{source.name}",
            "--layout=manifest",
        ]
        command += [
            f"--data_dir={uri}/data",
            f"--image_size={small_run.SIZE}",
            "--test_fraction=0",
            "--validation_fraction=0",
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == EXIT_DONE, done.stderr[-3000:]

        local = tmp_path / "run"  # its log, and in the end a copy of what the bucket holds

        def started() -> subprocess.Popen:
            return start(f"{uri}/data", local, f"--workdir={uri}/run")

        pair = [started(), started()]
        while all(run.poll() is None for run in pair):
            time.sleep(0.05)
        refused, run = sorted(pair, key=lambda run: run.poll() is None)
        assert refused.returncode == EXIT_CONFIG
        (said,) = errors(local)
        assert f"{uri}/run is being written by process {run.pid} on " in said
        while (
            not server.objects("training", "run/checkpoints/ckpt-00000004.json")
            and run.poll() is None
        ):
            time.sleep(0.05)
        run.kill()
        assert run.wait() == -signal.SIGKILL, log(local)[-3000:]
        assert started().wait(timeout=500) == EXIT_DONE, log(local)[-3000:]
        assert "Continuing from step" in log(local)
        for name, content in server.objects("training", "run/").items():
            if not name.endswith("/"):
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    assert_same(local, undisturbed)
