"""The program on Flink and Prism with worker processes of their own, undisturbed and with one of them killed."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.batch_inference.conftest import json_rows
from tests.distributed.conftest import IMAGES
from tests.support.runner_servers import ROOT, WorkerPool

KILL_AT = 20
"""So many pictures are written when a worker is killed."""
PROGRAM = "from batch_inference.main import score; raise SystemExit(score())"


def start(radiographs, model, output, *flags: str) -> subprocess.Popen:
    # From a folder of its own: nothing may lean on where the launcher stands.
    folder = output.parent / f"{output.name}-launcher"
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        f"--input={radiographs}",
        f"--model={model}",
        f"--output={output}",
    ]
    return subprocess.Popen(
        [*command, "--batch_size=4", "--engine=openvino", *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, seconds: int = 400) -> tuple[int, str]:
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def left_by(output: pathlib.Path) -> dict[str, list]:
    """Rows of each kind, every one of them, and the pictures."""
    rows = {name: json_rows(output, name) for name in ("predictions", "studies", "rejections")}
    return rows | {
        "cams": sorted(
            (str(path.relative_to(output)), path.read_bytes()) for path in output.rglob("*.jpg")
        )
    }


def kill_in_the_middle(process: subprocess.Popen, output: pathlib.Path, pool: WorkerPool) -> int:
    """Kills a worker when the first pictures are there; returns how many workers there were."""
    while len(list(output.rglob("*.jpg"))) < KILL_AT:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    workers = len(pool.workers())
    pool.kill_one()
    assert len(list(output.rglob("*.jpg"))) < IMAGES, "all was done before the kill"
    return workers


@pytest.fixture(scope="module")
def expected(radiographs, model, tmp_path_factory) -> dict[str, list]:
    output = tmp_path_factory.mktemp("embedded") / "out"
    code, said = finish(start(radiographs, model, output))
    assert code == 0, said
    left = left_by(output)
    assert (len(left["predictions"]), len(left["rejections"]), len(left["cams"])) == (
        IMAGES,
        1,
        IMAGES,
    )
    return left


@pytest.fixture(scope="module")
def on_flink(flink, pool) -> list[str]:
    """Four slots, two worker processes."""
    workers = [
        "--environment_type=EXTERNAL",
        f"--environment_config={pool.address}",
        "--sdk_worker_parallelism=2",
    ]
    return ["--runner=PortableRunner", f"--job_endpoint={flink}", "--parallelism=4", *workers]


@pytest.fixture(scope="module")
def on_prism(fetched, pool) -> list[str]:
    workers = ["--environment_type=EXTERNAL", f"--environment_config={pool.address}"]
    return ["--runner=PrismRunner", f"--prism_location={fetched / 'bin' / 'prism'}", *workers]


def test_flink_gives_the_rows_of_the_embedded_runner(
    radiographs, model, expected, on_flink, tmp_path
):
    code, said = finish(start(radiographs, model, tmp_path / "out", *on_flink))
    assert code == 0, said
    assert left_by(tmp_path / "out") == expected


def test_flink_loses_nothing_when_a_worker_dies(
    radiographs, model, expected, on_flink, pool, flink_scratch, tmp_path
):
    process = start(radiographs, model, tmp_path / "out", *on_flink)
    assert kill_in_the_middle(process, tmp_path / "out", pool) >= 2
    code, said = finish(process)
    assert code == 0, said
    assert "switched from state RUNNING to RESTARTING" in (flink_scratch / "log").read_text(
        errors="replace"
    )
    assert left_by(tmp_path / "out") == expected
    assert not list((tmp_path / "out").rglob("beam-temp-*"))


def test_prism_gives_the_rows_of_the_embedded_runner(
    radiographs, model, expected, on_prism, tmp_path
):
    code, said = finish(
        start(radiographs, model, tmp_path / "out", *on_prism, "--save_main_session")
    )
    assert code == 0, said
    assert left_by(tmp_path / "out") == expected


def test_prism_gives_up_when_its_worker_dies_and_resume_completes_the_rows(
    radiographs, model, expected, on_prism, pool, tmp_path
):
    output = tmp_path / "out"
    process = start(radiographs, model, output, *on_prism)
    kill_in_the_middle(process, output, pool)
    code, said = finish(process)
    assert code == 1
    # Not always the last line: Prism's own process may still say something.
    assert "\nhumerus-score: the runner failed (" in said
    assert json.loads((output / "run.json").read_text())["state"] == "running"
    assert not (output / "summary.json").exists()
    code, said = finish(start(radiographs, model, output, *on_prism, "--resume"))
    assert code == 0, said
    assert left_by(output) == expected
    assert json.loads((output / "run.json").read_text())["state"] == "finished"
