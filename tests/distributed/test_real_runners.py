"""These tests run the program on Flink and Prism, undisturbed and with a worker killed."""

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
"""The number of pictures that are written when a worker is killed."""
PROGRAM = "from batch_inference.main import score; raise SystemExit(score())"


def start(radiographs, model, output, *flags: str) -> subprocess.Popen:
    # The launcher starts in a folder of its own, since nothing may depend on the current folder.
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
    printed, _ = process.communicate(timeout=seconds)
    return process.returncode, printed


def read_results(output: pathlib.Path) -> dict[str, list]:
    """Return all rows of each kind, and the pictures."""
    rows = {name: json_rows(output, name) for name in ("predictions", "studies", "rejections")}
    return rows | {
        "cams": sorted(
            (str(path.relative_to(output)), path.read_bytes()) for path in output.rglob("*.jpg")
        )
    }


def kill_in_the_middle(process: subprocess.Popen, output: pathlib.Path, pool: WorkerPool) -> int:
    """Kill a worker when the first pictures exist; return how many workers there were."""
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
    code, printed = finish(start(radiographs, model, output))
    assert code == 0, printed
    left = read_results(output)
    assert (len(left["predictions"]), len(left["rejections"]), len(left["cams"])) == (
        IMAGES,
        1,
        IMAGES,
    )
    return left


@pytest.fixture(scope="module")
def on_flink(flink, pool) -> list[str]:
    """Return the flags for Flink: four slots, two worker processes."""
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
    code, printed = finish(start(radiographs, model, tmp_path / "out", *on_flink))
    assert code == 0, printed
    assert read_results(tmp_path / "out") == expected


def test_flink_loses_nothing_when_a_worker_dies(
    radiographs, model, expected, on_flink, pool, flink_scratch, tmp_path
):
    process = start(radiographs, model, tmp_path / "out", *on_flink)
    assert kill_in_the_middle(process, tmp_path / "out", pool) >= 2
    code, printed = finish(process)
    assert code == 0, printed
    assert "switched from state RUNNING to RESTARTING" in (flink_scratch / "log").read_text(
        errors="replace"
    )
    assert read_results(tmp_path / "out") == expected
    assert not list((tmp_path / "out").rglob("beam-temp-*"))


def test_prism_gives_the_rows_of_the_embedded_runner(
    radiographs, model, expected, on_prism, tmp_path
):
    code, printed = finish(
        start(radiographs, model, tmp_path / "out", *on_prism, "--save_main_session")
    )
    assert code == 0, printed
    assert read_results(tmp_path / "out") == expected


def test_prism_gives_up_when_its_worker_dies_and_resume_completes_the_rows(
    radiographs, model, expected, on_prism, pool, tmp_path
):
    output = tmp_path / "out"
    process = start(radiographs, model, output, *on_prism)
    kill_in_the_middle(process, output, pool)
    code, printed = finish(process)
    assert code == 1
    # It isn't always the last line, because Prism's own process may still print something.
    assert "\nhumerus-score: the runner failed (" in printed
    assert json.loads((output / "run.json").read_text())["state"] == "running"
    assert not (output / "summary.json").exists()
    code, printed = finish(start(radiographs, model, output, *on_prism, "--resume"))
    assert code == 0, printed
    assert read_results(output) == expected
    assert json.loads((output / "run.json").read_text())["state"] == "finished"
