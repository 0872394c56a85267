"""A pool of worker processes: if a task exhausts, crashes or hangs one, only that task fails."""

import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from trainer import machine
from trainer.workers.channel import ClosedError
from trainer.workers.process import (
    PoolStoppedError,
    TaskCrashError,
    TaskError,
    TaskMemoryError,
    WorkerProcess,
)
from trainer.workers.worker import Arguments, load_task, run_task

MEMORY = 960 << 20
"""Bytes that a task may allocate; room for `MAX_MEMORY` of `size_limits`, and for the file."""
SECONDS = 8.0
"""Processor time that a task may take."""
_ATTEMPTS = 3
"""Attempts at a task whose workers die before they report its start; bounded, since a hostile file
may kill them then."""

Result = tuple[dict[str, Any], list[np.ndarray]]
Call = tuple[Sequence[np.ndarray], Mapping[str, Any]]
"""The arrays and the keyword arguments of a task."""


class Pool:
    """Runs tasks in worker processes, one for each core by default; in threads where there can be
    no processes.

    Methods may be called from any number of threads, each of which waits for its own task.
    """

    def __init__(self, count: int | None = None, memory: int = MEMORY, seconds: float = SECONDS):
        """Take the number of workers, and what each task may have: bytes of memory, seconds of
        processor time."""
        self._memory = memory
        self._seconds = seconds
        self._count = count or machine.cores()
        # The last that was put back comes first: its memory is warm.
        self._slots: queue.LifoQueue[WorkerProcess | None] = queue.LifoQueue()
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
          PoolStoppedError: the program is ending.
        """
        return self._run(task, arrays, arguments)

    def run_many(self, task: str, calls: Sequence[Call]) -> list[Result | TaskError]:
        """Run a task for several calls; return the result of each, or why it has none.

        Calls in one message cost less than a message each. There they share the limits of one task.
        Those that fail, or whose fields hold a `refusal`, run again alone within limits of their
        own.

        Raises:
          PoolStoppedError: the program is ending.
        """
        found: list[Result | TaskError] = []
        together = self._run_together(task, calls) if len(calls) > 1 else [None] * len(calls)
        for call, result in zip(calls, together, strict=True):
            try:
                found.append(result or self._run(task, *call))
            except TaskError as error:
                found.append(error)
        return found

    def _run_together(self, task: str, calls: Sequence[Call]) -> list[Result | None]:
        given = [array for arrays, _ in calls for array in arrays]
        try:
            fields, made = self._run(task, given, [(len(arrays), named) for arrays, named in calls])
            rest = iter(made)
            found = [
                (dict(one[1]), list(itertools.islice(rest, one[0]))) if one else None
                for one in fields["results"]
            ]
        except PoolStoppedError:
            raise
        except Exception:  # also where a worker that was taken over answers anything
            found = []
        return found if len(found) == len(calls) else [None] * len(calls)

    def _run(self, task: str, arrays: Sequence[np.ndarray], arguments: Arguments) -> Result:
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
                if fields.get("should_replace"):
                    worker.kill()
                return result
            if not self._has_worked.is_set():
                # None has ever come up: processes are as good as forbidden here.
                self._fall_back("worker processes do not start")
                return _run_here(task, arrays, arguments)
            raise TaskCrashError(f"{_ATTEMPTS} workers died before they began")
        finally:
            self._slots.put(worker if worker and worker.alive else None)

    def warm(self, task: str, **arguments: Any) -> None:
        """Start all workers in the background, and let each run `task`, which takes no arrays.

        A worker takes the better part of a second to start, which passes beside other work.
        """
        for _ in range(self._count):
            threading.Thread(target=self._warm_one, args=[task, arguments], daemon=True).start()

    def _warm_one(self, task: str, arguments: dict[str, Any]) -> None:
        with contextlib.suppress(TaskError, PoolStoppedError):
            self.run(task, [], **arguments)

    def stream(self, task: str, arrays: Sequence[np.ndarray], **arguments: Any) -> Iterator[Result]:
        """Run a task that yields several results, each computed when it is asked for; raise as
        `run`.

        It has a worker of its own: the caller may run other tasks between two results.
        """
        worker = self._start()
        if worker is None:
            yield from _stream_here(task, arrays, arguments)
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

    @contextlib.contextmanager
    def stop_on_error(self) -> Iterator[None]:
        """Make every task fail with `PoolStoppedError` once the block has raised.

        The interpreter waits for its threads before it ends, so that none may wait for a file. A
        signal that stops the program arrives in the block as an exception.
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

    def _start(self) -> WorkerProcess | None:
        """Return a new worker; None where the system forbids processes."""
        if self._stopped.is_set():
            raise PoolStoppedError("the program is ending")
        if self._forbidden.is_set():
            return None
        try:
            worker = WorkerProcess(self._memory, self._seconds, self._stopped)
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


@contextlib.contextmanager
def _raise_as_worker() -> Iterator[None]:
    """Raise what a worker would make of an exception in the block."""
    try:
        yield
    except MemoryError as error:
        raise TaskMemoryError("MemoryError") from error
    except Exception as error:
        raise TaskError(type(error).__name__) from error


def _run_here(task: str, arrays: Sequence[np.ndarray], arguments: Arguments) -> Result:
    with _raise_as_worker():
        fields, made = run_task(load_task(task), arrays, arguments)
        return fields, list(made)


def _stream_here(
    task: str, arrays: Sequence[np.ndarray], arguments: dict[str, Any]
) -> Iterator[Result]:
    with _raise_as_worker():
        for fields, made in load_task(task)(arrays, **arguments):
            yield fields, list(made)


class _Shared:
    """Holds the pool of this process, which is made when it is first used."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the pool inherited from the parent without closing it."""
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
    """Return the process-wide pool."""
    return _shared.get()
