"""Start servers of other runners on this machine, and worker processes that tests can kill."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKER = "apache_beam.runners.worker.sdk_worker_main"
"""What the command of a worker process of Beam's Python SDK says."""
_START_SECONDS = 90
# What Flink, written for Java 8, needs of later ones.
_OPENED = ("lang", "net", "nio", "time", "util")
_FLINK_CONFIGURATION = """\
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 3
restart-strategy.fixed-delay.delay: 1 s
"""


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def image_environment(target: str) -> dict[str, str]:
    """Return only what the Dockerfile sets for a target, so that workers here can do no more than
    those of the image.
    """
    stage = (
        (ROOT / "Dockerfile")
        .read_text(encoding="utf-8")
        .partition(f" AS {target}\n")[2]
        .partition("\nFROM ")[0]
    )
    return dict(re.findall(r"^ENV (\w+)=(\S+)$", stage, re.MULTILINE))


class WorkerPool:
    """Starts worker processes when a runner asks for them (`--environment_type=EXTERNAL`), as
    Beam's container does.

    Each begins with `boot`, the program that Beam's own container begins with: it fetches what the
    launcher staged, then starts Python, and starts it again where it dies.
    """

    def __init__(self, process: subprocess.Popen, port: int):
        self._process = process
        self.address = f"localhost:{port}"

    def workers(self) -> list[psutil.Process]:
        """Worker processes that are alive."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if WORKER in process.cmdline():
                    found.append(process)
        return found

    def kill_one(self) -> None:
        """As `kill -9`."""
        self.workers()[0].send_signal(signal.SIGKILL)


@contextlib.contextmanager
def worker_pool(boot: pathlib.Path, scratch: pathlib.Path) -> Iterator[WorkerPool]:
    """Yield a pool whose processes keep their files in `scratch`."""
    scratch.mkdir()
    executable = scratch / "boot.sh"
    # A folder for each: what it stages lies there, and the options that it leaves in the current
    # folder.
    executable.write_text(
        f"#!/bin/sh\nmkdir {scratch}/$$ && cd {scratch}/$$ &&"
        f' exec {boot} --semi_persist_dir="$PWD" "$@"\n',
        encoding="utf-8",
    )
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    command += [f"--service_port={port}", f"--container_executable={executable}"]
    environment = os.environ | {
        **image_environment("score"),
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with _server(command, port, scratch, environment) as process:
        yield WorkerPool(process, port)


@contextlib.contextmanager
def flink(jars: pathlib.Path, scratch: pathlib.Path) -> Iterator[str]:
    """Beam's job server for Flink with a cluster of its own, which starts a failed job again up to
    three times; yields its address.
    """
    scratch.mkdir()
    (scratch / "flink-conf.yaml").write_text(_FLINK_CONFIGURATION, encoding="utf-8")
    port = free_port()
    command = [
        "java",
        "-Xmx1500m",
        *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    ]
    command += [
        "-cp",
        f"{jars}/*",
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
        "--flink-master=[local]",
    ]
    command += [f"--flink-conf-dir={scratch}", f"--artifacts-dir={scratch / 'artifacts'}"]
    command += [f"--job-port={port}", "--artifact-port=0", "--expansion-port=0"]
    with _server(command, port, scratch, dict(os.environ)):
        yield f"localhost:{port}"


@contextlib.contextmanager
def _server(
    command: list[str], port: int, scratch: pathlib.Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen]:
    """Run a server until the block ends, with its output in `log` of `scratch`; enter the block
    once it listens.
    """
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=log, stderr=log)
    try:
        _await_port(port, process, scratch / "log")
        yield process
    finally:
        started = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for left in [process, *started]:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                left.kill()
        process.wait()


def _await_port(port: int, process: subprocess.Popen, log: pathlib.Path) -> None:
    for _ in range(_START_SECONDS * 10):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(
        f"no server at port {port}: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
    )
