"""Files that kill, crash or hang their worker, in whole runs and when a signal comes."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from batch_inference import pipeline
from tests.batch_inference.conftest import json_rows
from trainer.errors import EXIT_STOPPED, DataError
from trainer.program import signals
from trainer.workers import imaging

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPECTED = {b"kill!": "decode_failed", b"crash": "decode_failed", b"loop!": "too_slow"}
HANGING = """
import sys
from trainer.workers import imaging, pool
pool.SECONDS = 60.0
pool.Pool.__init__.__defaults__ = (None, pool.MEMORY, 60.0)
imaging.Imaging.DECODE = "tests.support.worker_tasks:loop_for_ever"
from batch_inference.main import score
sys.exit(score())
"""


@pytest.mark.slow
@pytest.mark.parametrize("harm", EXPECTED, ids=lambda harm: harm.decode())
def test_a_file_that_ends_its_worker_costs_one_row(model, radiographs, tmp_path, monkeypatch, harm):
    source = tmp_path / "in"
    shutil.copytree(radiographs, source)
    monkeypatch.setattr(imaging.Imaging, "DECODE", "tests.support.worker_tasks:crash_on_bytes")

    def score(output: pathlib.Path) -> list[dict]:
        pipeline.run(pipeline.Options(str(source), str(model), str(output)))
        return json_rows(output, "predictions")

    before = score(tmp_path / "before")
    (source / "patient00001" / "bad.png").write_bytes(harm)
    assert score(tmp_path / "after") == before and len(before) == 14
    (rejected,) = json_rows(tmp_path / "after", "rejections")
    assert rejected["uri"] == str(source / "patient00001" / "bad.png")
    assert rejected["reason"] == EXPECTED[harm]


@pytest.mark.slow
@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_signal_ends_the_run_while_a_file_decodes(model, radiographs, tmp_path, number):
    source = tmp_path / "in"
    source.mkdir()
    picture = next(path for path in sorted(radiographs.rglob("*.png")))
    for index in range(3):
        shutil.copy(picture, source / f"{index}.png")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HANGING,
            f"--input={source}",
            f"--model={model}",
            f"--output={tmp_path}/out",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (source / "decoding").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    # Ten seconds are promised; beyond them is for a busy machine.
    _, said = process.communicate(timeout=10 + 5)
    assert process.returncode == EXIT_STOPPED, said
    assert said.splitlines()[-1].startswith("humerus-score: stopped; ")


@pytest.mark.parametrize("kind", ["fifo", "device", "dangling"])
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_manifest_that_is_no_file_is_refused(model, tmp_path, kind, suffix):
    manifest = tmp_path / f"list{suffix}"
    if kind == "fifo":
        os.mkfifo(manifest)
    else:
        manifest.symlink_to({"device": "/dev/zero", "dangling": "/nowhere"}[kind])
    with pytest.raises(DataError, match=f"the manifest {manifest} cannot be read"):
        pipeline.run(pipeline.Options(str(manifest), str(model), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
