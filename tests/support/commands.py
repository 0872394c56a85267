"""Run `humerus-train` in processes of its own, which tests wait for, stop and kill."""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from tests.support import small_run
from trainer.dataset.prepare import prepare
from trainer.options import PrepareOptions
from trainer.training import strategy

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = "import sys; from trainer.main import train; sys.exit(train())"
SHORT_LEASE = """
from trainer.program import bucket_lease
bucket_lease.RENEW_SECONDS, bucket_lease.POLL_SECONDS = 0.2, 0.1
bucket_lease.GIVE_UP_SECONDS, bucket_lease.EXPIRE_SECONDS = 2.0, 10.0
bucket_lease.RETRY_SECONDS = 1.0
"""
"""What a process runs first whose lease of a folder in a bucket is to be lost in seconds."""
TWO_DEVICES = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
"""What a process runs first that is to take its processor for two devices."""


def prepared(root: pathlib.Path, **options) -> str:
    """Prepare the data set of `small_run.write_source`; return its folder."""
    source = small_run.write_source(root / "source", **options)
    prepare(
        PrepareOptions(
            str(source),
            "manifest",
            str(root / "data"),
            image_size=small_run.SIZE,
            test_fraction=0.0,
            validation_fraction=0.0,
        )
    )
    return str(root / "data")


def start(
    data_dir: str,
    workdir: pathlib.Path,
    *flags: str,
    devices: int = 1,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """`humerus-train` in a process of its own, its log beside the workdir."""
    command = [
        sys.executable,
        "-c",
        TWO_DEVICES + COMMAND if devices == 2 else COMMAND,
        f"--data_dir={data_dir}",
    ]
    command += [f"--workdir={workdir}", "--config=tests/support/small_recipe.py", *flags]
    with workdir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=log, stderr=log
        )


def finish(data_dir: str, workdir: pathlib.Path, *flags: str, devices: int = 1) -> int:
    """Wait for the end of the run; return its exit code."""
    return start(data_dir, workdir, *flags, devices=devices).wait(timeout=500)


def start_hosts(data_dir: str, workdir: pathlib.Path, *flags: str) -> list[subprocess.Popen]:
    """One run in two processes as on two hosts, as an Indexed Job of Kubernetes would start them;
    the first is the chief.
    """
    return [start(data_dir, workdir, *flags, environment=place) for place in places_of_two_hosts()]


def places_of_two_hosts() -> list[dict[str, str]]:
    """Return the environment of each of two hosts, which names both."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("localhost", 0))
        hosts = ",".join(f"localhost:{probe.getsockname()[1]}" for probe in (one, other))
    return [{strategy.HOSTS: hosts, strategy.INDEX: str(index)} for index in range(2)]


def log(workdir: pathlib.Path) -> str:
    """Return the output of a workdir's processes so far."""
    return workdir.with_suffix(".log").read_text(errors="replace")


def stop_after(
    process: subprocess.Popen,
    workdir: pathlib.Path,
    step: int,
    number: int,
    fold: str = "",
    patience: float = 0.05,
) -> int:
    """Send a signal after a checkpoint of `step` or a later one (in the folder `fold`, as
    `fold-2/`), within `patience` seconds; return the exit code.
    """
    while process.poll() is None:
        steps = [int(mark.stem[5:]) for mark in workdir.glob(f"{fold}checkpoints/ckpt-*.json")]
        if steps and max(steps) >= step:
            time.sleep(random.uniform(0, patience))
            process.send_signal(number)
            break
        time.sleep(0.005)
    return process.wait(timeout=500)
