"""Map a function over the files of a source in threads, which wait for workers or for storage."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from trainer import machine
from trainer.program import telemetry
from trainer.workers import pool

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Map a function over items, in order, in threads, with a few items in flight at a time.

    When the loop over the results fails, or a signal ends it, tasks of the worker pool fail at
    once.
    """
    # Remote reads wait more than they work.
    workers = max(4, machine.cores() + 1)
    pending: collections.deque[concurrent.futures.Future[_R]] = collections.deque()
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as threads,
        pool.shared().stop_on_error(),
    ):
        try:
            for item in items:
                pending.append(threads.submit(function, item))
                telemetry.report_progress()
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
