"""A pool of worker processes: a task that exhausts, crashes or hangs one costs that task only.

Workers are started with a clean interpreter: a fork would inherit the locks of TensorFlow's and
Beam's threads.
"""

import contextlib
import functools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from trainer import machine
from trainer.workers.channel import Channel, ClosedError, make_arena
from trainer.workers.worker import load_task

MEMORY = 960 << 20
"""Bytes that a task may allocate; room for `trainer.decoding.refusal.MAX_MEMORY` and the file."""
SECONDS = 8.0
"""Processor time that a task may take."""
_WALL_SECONDS = 15
"""Seconds that may pass for each second of processor time, on a busy machine or where a file comes
over a network."""
_START_SECONDS = 120.0
_POLL_SECONDS = 0.2
_ATTEMPTS = 3
"""Workers that may be lost before they say that they have begun; a hostile file might make them
deny it."""
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

_STOPPED = "the program is ending"

Result = tuple[dict[str, Any], list[np.ndarray]]


class TaskError(Exception):
    """A task did not end well; the message names the exception that it raised."""


class TaskMemoryError(TaskError):
    """A task wanted more memory than it may have."""


class TaskTimeError(TaskError):
    """A task took more time than it may take."""


class TaskCrashError(TaskError):
    """The worker died of a task."""


class StoppedError(RuntimeError):
    """The program is ending; nobody waits for the result."""


class _Worker:
    """One worker process, as its parent sees it."""

    def __init__(self, memory: int, seconds: float, stopped: threading.Event):
        """Start the process, of which nobody waits for an answer any more once `stopped` is set.

        Raises:
          OSError: the system forbids processes.
          TaskCrashError: it does not come up.
        """
        self._deadline = _WALL_SECONDS * seconds
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
        self, task: str, arrays: Sequence[np.ndarray], arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], list[np.ndarray], int]:
        """Send a task and wait for its reply. The arrays are views, valid until the next task.

        Raises:
          ClosedError: the worker died before the task; it has seen nothing of it.
          TaskError: as it says. Unless `alive`, the worker is of no more use.
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
                raise StoppedError(_STOPPED)

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
    def pid(self) -> int:
        return self._process.pid

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


class Pool:
    """Runs tasks in worker processes, one for each core by default; in threads where
    there can be no processes.

    Methods may be called from any number of threads, each of which waits for its own task.
    """

    def __init__(self, count: int | None = None, memory: int = MEMORY, seconds: float = SECONDS):
        """Take the number of workers, and what each task may have: bytes of memory, seconds of
        processor time."""
        self._memory = memory
        self._seconds = seconds
        self._count = count or machine.cores()
        # The last that was put back comes first: its memory is warm.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._count):
            self._slots.put(None)
        self._forbidden = threading.Event()
        self._has_worked = threading.Event()
        self._stopped = threading.Event()

    def run(self, task: str, arrays: Sequence[np.ndarray], **arguments: Any) -> Result:
        """Run a task `module:function` and return its fields and arrays.

        Args:
          task: names `function(arrays, **arguments)`, which returns JSON-able fields and arrays.
          arrays: uint8 or float32, of any shape.
          arguments: JSON-able.

        Raises:
          TaskError: the task failed; one of the subclasses where a limit was reached or the worker
          died.
          StoppedError: the program is ending.
        """
        worker = self._slots.get()
        try:
            for _ in range(_ATTEMPTS):
                try:
                    worker = worker or self._start()
                except TaskCrashError:
                    continue
                if worker is None:
                    return _run_here(task, arrays, arguments)
                try:
                    fields, made, end = worker.ask(task, arrays, arguments)
                except ClosedError:
                    # It was killed while it had nothing to do: that is not this task's fault.
                    worker.kill()
                    worker = None
                    continue
                found = fields.get("result")
                if not isinstance(found, dict):
                    worker.kill()
                    raise TaskCrashError("the answer is damaged")
                result = found, [array.copy() for array in made]
                del made
                worker.release(end)
                if fields.get("tired"):
                    worker.kill()
                return result
            if not self._has_worked.is_set():
                # None has ever come up: processes are as good as forbidden here.
                self._fall_back("worker processes do not start")
                return _run_here(task, arrays, arguments)
            raise TaskCrashError(f"{_ATTEMPTS} workers died before they began")
        finally:
            self._slots.put(worker if worker and worker.alive else None)

    def warm(self, task: str) -> None:
        """Start all workers in the background, and let each run `task`, which takes nothing.

        A worker takes the better part of a second to start, which passes beside other work.
        """
        for _ in range(self._count):
            threading.Thread(target=self._warm_one, args=[task], daemon=True).start()

    def _warm_one(self, task: str) -> None:
        with contextlib.suppress(TaskError, StoppedError):
            self.run(task, [])

    def stream(self, task: str, arrays: Sequence[np.ndarray], **arguments: Any) -> Iterator[Result]:
        """Run a task that yields several results, each computed when it is asked for; raise as
        `run`.

        It has a worker of its own: the caller may run other tasks between two results.
        """
        worker = self._start()
        if worker is None:
            yield from _each_here(task, arrays, arguments)
            return
        try:
            fields, made, _ = worker.ask(task, arrays, arguments)
            while "over" not in fields:
                found = fields.get("item")
                if not isinstance(found, dict):
                    raise TaskCrashError("the answer is damaged")
                yield found, [array.copy() for array in made]
                fields, made, _ = worker.next_item()
        except ClosedError as error:
            raise TaskCrashError(str(error)) from error
        finally:
            worker.kill()

    def pids(self) -> list[int]:
        """Return the process ids of the workers that have nothing to do at the moment."""
        with self._slots.mutex:
            return [worker.pid for worker in self._slots.queue if worker]

    @contextlib.contextmanager
    def stop_on_error(self) -> Iterator[None]:
        """Make every task fail with `StoppedError` once the block has raised, so that no thread
        waits for a file.

        The interpreter waits for its threads before it ends. A signal that stops the program
        arrives in the block as an exception.
        """
        self._stopped.clear()
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException:
            self._stopped.set()
            raise
        finally:
            self._end_idle()

    def _end_idle(self) -> None:
        """End the workers that have nothing to do; others are started when there is something."""
        with self._slots.mutex:
            idle, self._slots.queue[:] = list(self._slots.queue), [None] * len(self._slots.queue)
        for worker in idle:
            if worker:
                worker.kill()

    def _start(self) -> _Worker | None:
        """Return a new worker; None where the system forbids processes."""
        if self._stopped.is_set():
            raise StoppedError(_STOPPED)
        if self._forbidden.is_set():
            return None
        try:
            worker = _Worker(self._memory, self._seconds, self._stopped)
        except OSError as error:
            self._fall_back(str(error))
            return None
        self._has_worked.set()
        return worker

    def _fall_back(self, reason: str) -> None:
        """Run all further tasks in threads, and log that once."""
        if not self._forbidden.is_set():
            self._forbidden.set()
            logging.warning(
                "files are decoded in threads, without limits on memory and time (%s)", reason
            )


def _run_here(task: str, arrays: Sequence[np.ndarray], arguments: dict[str, Any]) -> Result:
    try:
        fields, made = load_task(task)(arrays, **arguments)
    except MemoryError as error:
        raise TaskMemoryError("MemoryError") from error
    except Exception as error:
        raise TaskError(type(error).__name__) from error
    return fields, list(made)


def _each_here(
    task: str, arrays: Sequence[np.ndarray], arguments: dict[str, Any]
) -> Iterator[Result]:
    items: Callable[[], Result] = functools.partial(next, load_task(task)(arrays, **arguments))
    while True:
        try:
            fields, made = items()
        except StopIteration:
            return
        except MemoryError as error:
            raise TaskMemoryError("MemoryError") from error
        except Exception as error:
            raise TaskError(type(error).__name__) from error
        yield fields, list(made)


class _Shared:
    """The pool of this process, made when it is first wanted."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the pool to whoever else has it."""
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def get(self) -> Pool:
        with self._lock:
            self._pool = self._pool or Pool()
            return self._pool


_shared = _Shared()
# The workers of a parent are not those of a child that was forked.
os.register_at_fork(after_in_child=_shared.forget)


def shared() -> Pool:
    """Return the pool that all of this process share."""
    return _shared.get()
