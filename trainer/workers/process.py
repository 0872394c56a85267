"""Control one worker process from its parent: start it, give it tasks, say why it died.

It is started with a clean interpreter: a fork would inherit the locks of TensorFlow's and Beam's
threads.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.workers.channel import Channel, ClosedError, make_arena
from trainer.workers.worker import Arguments

WALL_SECONDS = 15
"""Seconds that may pass for each second of processor time: the machine may be busy, or the file may
come over a network."""
_START_SECONDS = 120.0
_POLL_SECONDS = 0.2
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from trainer.workers import worker; worker.main(*json.loads(sys.argv.pop()))"
)
_ENVIRONMENT = {
    # As many workers as cores leave nothing to gain by threads.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # glibc keeps the memory of a picture for the next one: by default it goes back to the system,
    # and a tenth of a worker's time was spent on getting it again.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class TaskError(Exception):
    """A task failed; the message names the exception that it raised."""


class TaskMemoryError(TaskError):
    """A task wanted more memory than it may have."""


class TaskTimeError(TaskError):
    """A task took more time than it may take."""


class TaskCrashError(TaskError):
    """The worker died of a task."""


class PoolStoppedError(RuntimeError):
    """The program is ending, so that the task was given up."""


class WorkerProcess:
    """Controls one worker process from its parent."""

    def __init__(self, memory: int, seconds: float, stopped: threading.Event):
        """Start the process; once `stopped` is set, waiting for it raises `PoolStoppedError`.

        Raises:
          OSError: the system forbids processes.
          TaskCrashError: it does not come up.
        """
        self._deadline = WALL_SECONDS * seconds
        self._stopped = stopped
        ours, theirs = socket.socketpair()
        arena = make_arena()
        try:
            with theirs:
                arguments = [theirs.fileno(), arena, memory, seconds]
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-c",
                        _PROGRAM,
                        json.dumps(arguments),
                        json.dumps(sys.path),
                    ],
                    pass_fds=(theirs.fileno(), arena),
                    stdin=subprocess.DEVNULL,
                    # What codecs print quotes the file.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env=os.environ | _ENVIRONMENT,
                )
            self._channel = Channel(ours, arena)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(arena)
        ours.settimeout(_POLL_SECONDS)
        try:
            self._receive(_START_SECONDS)
        except (TaskError, ClosedError) as error:
            self.kill()
            raise TaskCrashError(f"a worker process does not start ({error})") from error

    def ask(
        self, task: str, arrays: Sequence[np.ndarray], arguments: Arguments
    ) -> tuple[dict[str, Any], list[np.ndarray], int]:
        """Send a task and wait for its reply. The arrays are views, valid until the next task.

        Args:
          task, arrays, arguments: as of `worker.run_task`, the task by its name.

        Raises:
          ClosedError: the worker died before it began the task.
          TaskError: the task failed. Unless `alive`, the worker must be replaced.
        """
        self._channel.accepted = False
        try:
            self._channel.send({"task": task, "arguments": arguments}, arrays)
        except MemoryError as error:
            raise TaskMemoryError("MemoryError") from error
        return self._reply()

    def next_item(self) -> tuple[dict[str, Any], list[np.ndarray], int]:
        """Wait for the next item of a task that yields several."""
        self._channel.send({}, [])
        return self._reply()

    def _reply(self) -> tuple[dict[str, Any], list[np.ndarray], int]:
        try:
            fields, arrays, end = self._receive(self._deadline)
        except ClosedError:
            if not self._channel.accepted:
                raise
            raise self._cause_of_death() from None
        if "failed" in fields:
            kind = TaskMemoryError if fields["failed"] == "MemoryError" else TaskError
            raise kind(str(fields["failed"])[:80])
        return fields, arrays, end

    def _receive(self, seconds: float) -> tuple[dict[str, Any], list[np.ndarray], int]:
        deadline = time.monotonic() + seconds

        def keep_waiting() -> None:
            if time.monotonic() > deadline:
                self.kill()
                raise TaskTimeError(f"no answer for {seconds:.0f} seconds")
            if self._stopped.is_set():
                self.kill()
                raise PoolStoppedError("the program is ending")

        return self._channel.receive(keep_waiting)

    def _cause_of_death(self) -> TaskError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self.kill()
        code = self._process.returncode or 0
        if code == -signal.SIGXCPU:
            return TaskTimeError("the limit of processor time")
        return TaskCrashError(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def release(self, end: int) -> None:
        self._channel.release(end)

    def kill(self) -> None:
        """End the process at once; a process that the kernel holds back is left behind."""
        self._channel.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
