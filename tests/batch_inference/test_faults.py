"""Faults around a run: a full disk, no permission, a signal, an image that the engine refuses."""

import ctypes
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from batch_inference import pipeline
from batch_inference.storage import storage_errors
from tests.batch_inference.conftest import json_rows
from tests.support import small_disk
from trainer.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = [
    sys.executable,
    "-c",
    "from batch_inference.main import score; raise SystemExit(score())",
]
SMALL_PARTS = PROGRAM[-1].replace(
    "from", "from batch_inference.outputs import journal; journal.ROWS_PER_PART = 2; from", 1
)


def start(source, model, output, *flags, before=(), **settings) -> subprocess.Popen:
    command = [
        *before,
        PROGRAM[0],
        "-c",
        SMALL_PARTS,
        f"--input={source}",
        f"--model={model}",
        f"--output={output}",
        *flags,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes, **settings)


def sentence(stderr: str) -> str:
    """Return the message of the command; it must be one line beside the log."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("humerus-score: ")]
    assert "Traceback" not in stderr
    return line


def check_goes_on(source, model, output, images: int) -> None:
    assert json.loads((output / "run.json").read_text())["state"] == "running"
    assert not list(output.rglob("*.partial")), "something is half-written"
    summary = pipeline.run(pipeline.Options(str(source), str(model), str(output), resume=True))
    assert summary.content["scored"] == len(json_rows(output, "predictions")) == images
    assert json.loads((output / "run.json").read_text())["state"] == "finished"


def _small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


def test_a_limit_that_no_file_fits_ends_the_run_with_a_sentence(model, radiographs, tmp_path):
    output = tmp_path / "out"
    run = start(radiographs, model, output, "--cam_format=png", preexec_fn=_small_files_only)
    _, said = run.communicate(timeout=300)
    assert run.returncode == EXIT_FAILURE
    assert (
        "cannot be written to" in sentence(said)
        and "(File too large)" in said
        and "--resume to continue" in said
    )
    resumed = pipeline.Options(
        str(radiographs), str(model), str(output), resume=True, cam_format="png"
    )
    assert json.loads((output / "run.json").read_text())["state"] == "running"
    assert not list(output.rglob("*.partial"))
    assert pipeline.run(resumed).content["scored"] == 14


@pytest.fixture
def disk(tmp_path):
    with small_disk.mounted(tmp_path / "disk", 200) as disk:
        yield disk


def test_a_disk_that_is_full_from_the_start_is_to_be_tried_again(model, radiographs, disk):
    small_disk.fill(disk, 200)
    run = start(radiographs, model, disk / "out")
    _, said = run.communicate(timeout=300)
    assert run.returncode == EXIT_FAILURE
    assert (
        "cannot be written (No space left on device); "
        "when that is over, start the same command again" in sentence(said)
    )


@pytest.mark.slow
@pytest.mark.parametrize("room", [40, 90])
def test_a_full_disk_ends_the_run_with_a_sentence_and_more_room_lets_it_go_on(
    model, radiographs, disk, room
):
    """Full while pictures are drawn, and full when the rows are written."""
    filler = small_disk.fill(disk, 200 - room)
    output = disk / "out"
    run = start(radiographs, model, output)
    _, said = run.communicate(timeout=300)
    assert run.returncode == EXIT_FAILURE
    assert "(No space left on device)" in sentence(said)
    filler.unlink()
    check_goes_on(radiographs, model, output, 14)


def _without_rights_over_files() -> None:
    """Drop root's CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, so that permissions hold for it too."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability)


def test_what_may_not_be_read_is_a_rejection_that_says_so(model, radiographs, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(radiographs, source)
    locked = [source / "locked.png", source / "locked folder"]
    shutil.copy(next(radiographs.rglob("*.png")), locked[0])
    shutil.copytree(radiographs / "patient00000", locked[1])
    for path in locked:
        path.chmod(0)
    run = start(source, model, output, "--cam=none", preexec_fn=_without_rights_over_files)
    _, said = run.communicate(timeout=300)
    locked[1].chmod(0o700)
    assert run.returncode == EXIT_DONE, said
    assert len(json_rows(output, "predictions")) == 14
    assert [
        (row["uri"], row["reason"], row["detail"]) for row in json_rows(output, "rejections")
    ] == [(str(path), "unreadable", "Permission denied") for path in sorted(locked)]


def test_an_output_that_cannot_be_made_is_refused(model, radiographs, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    run = start(radiographs, model, tmp_path / "file" / "out")
    _, said = run.communicate(timeout=300)
    assert run.returncode == EXIT_CONFIG
    assert "cannot be written (Not a directory" in sentence(said)


def test_only_what_hits_every_file_ends_a_run():
    assert storage_errors.find_write_failure(
        RuntimeError("OSError: [Errno 28] No space left on device [while running 'x']")
    ) == ("No space left on device")
    of_worker = (
        "batch_inference.storage.storage_errors.UnwritableError: "
        "the storage answers 403 Forbidden [while running 'x']"
    )
    assert (
        storage_errors.find_write_failure(RuntimeError(of_worker))
        == "the storage answers 403 Forbidden"
    )
    assert (
        storage_errors.find_write_failure(RuntimeError("OSError: [Errno 36] File name too long"))
        is None
    )
    assert storage_errors.find_write_failure(RuntimeError("ValueError: broken")) is None


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_and_the_same_command_goes_on(model, radiographs, tmp_path, signum):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = sorted(path for path in radiographs.rglob("*") if path.is_file())
    for index in range(700):
        os.link(images[index % len(images)], source / f"{index}.png")
    run = start(source, model, output, "--batch_size=2")
    while not (output / "journal").exists() and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signum)
    _, said = run.communicate(timeout=60)
    assert run.returncode == EXIT_STOPPED
    assert sentence(said).endswith("run the same command with --resume to continue")
    check_goes_on(source, model, output, 700)
