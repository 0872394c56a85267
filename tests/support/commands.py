"""`humerus-train` in processes of its own, to be waited for, stopped and killed."""

import pathlib
import random
import subprocess
import sys
import time

from tests.support import small_run
from trainer.prepare import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = "import sys; from trainer.main import train; sys.exit(train())"


def prepared(root: pathlib.Path, **options) -> str:
    """The data set of `small_run.write_source`, prepared; its folder."""
    source = small_run.write_source(root / "source", **options)
    prepare(str(source), "manifest", str(root / "data"), image_size=small_run.SIZE, test_fraction=0.0, validation_fraction=0.0)
    return str(root / "data")


def start(data_dir: str, workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    """`humerus-train` in a process of its own, its log beside the workdir."""
    command = [sys.executable, "-c", COMMAND, f"--data_dir={data_dir}"]
    command += [f"--workdir={workdir}", "--config=tests/support/small_recipe.py", *flags]
    with workdir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def finish(data_dir: str, workdir: pathlib.Path, *flags: str) -> int:
    """Waits for the run; its exit code."""
    return start(data_dir, workdir, *flags).wait(timeout=500)


def log(workdir: pathlib.Path) -> str:
    """What the processes of a workdir have said so far."""
    return workdir.with_suffix(".log").read_text(errors="replace")


def stop_after(process: subprocess.Popen, workdir: pathlib.Path, step: int, number: int, fold: str = "") -> int:
    """Sends a signal as soon as there is a checkpoint of `step` or a later one (in the folder `fold`, as `fold-2/`); the exit code."""
    while process.poll() is None:
        steps = [int(mark.stem[5:]) for mark in workdir.glob(f"{fold}checkpoints/ckpt-*.json")]
        if steps and max(steps) >= step:
            time.sleep(random.uniform(0, 0.05))
            process.send_signal(number)
            break
        time.sleep(0.005)
    return process.wait(timeout=500)
