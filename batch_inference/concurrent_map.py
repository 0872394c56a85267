"""A map whose function runs in threads, ahead of what comes after it."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import cv2
import threadpoolctl
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from trainer import machine

_REMOTE_THREADS = 32
"""Threads where files are remote: they wait for the network, so there may be more than cores."""


@dataclasses.dataclass(frozen=True)
class PoolSize:
    """Says how much of a map runs at once.

    Attributes:
      window: elements that may be under way.
      threads: of each worker; None for one per core of that worker.
    """

    window: int
    threads: int | None

    @classmethod
    def choose(cls, batch_size: int, remote: bool) -> "PoolSize":
        """Return the size that keeps a network busy that takes `batch_size` images at once."""
        threads = _REMOTE_THREADS if remote else None
        return cls(batch_size + 2 * (threads or machine.cores()), threads)


class ConcurrentMap(beam.DoFn):
    """Maps each element in a pool of threads; results keep their order.

    While a later step of the same bundle works (the network, in C++), the pool goes on with up to
    `window` elements.
    That overlap, with plain single elements between the steps, is all the scheduling that scoring
    needs.
    For functions that let other threads run: reading, decoding, encoding. Global window only.
    """

    def __init__(self, function: Callable[[Any], Any], window: int, threads: int | None = None):
        """Take a function of one element, how many may be under way at once, and the threads (one
        more than cores by default).
        """
        super().__init__()
        self._function = function
        self._window = window
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pending: collections.deque[Future] = collections.deque()

    def setup(self) -> None:
        # The pool uses the cores already: threads inside of each call cost more in waiting than
        # they bring.
        cv2.setNumThreads(1)
        threadpoolctl.threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self._threads or machine.cores() + 1)

    def start_bundle(self) -> None:
        # A bundle that failed may have left some behind; its elements come again.
        self._pending.clear()

    def process(self, element: Any) -> Iterator[Any]:
        assert self._pool is not None, "setup comes first"
        self._pending.append(self._pool.submit(self._function, element))
        if len(self._pending) > self._window:
            yield from self._results(self._pending.popleft())

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._pending:
            for result in self._results(self._pending.popleft()):
                yield WindowedValue(result, MIN_TIMESTAMP, (GlobalWindow(),))

    def _results(self, call: Future) -> Iterable[Any]:
        return (call.result(),)

    def teardown(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


class ConcurrentFlatMap(ConcurrentMap):
    """The same for a function that returns an iterable of results. Where that is a generator, it
    runs as its results are taken."""

    def _results(self, call: Future) -> Iterable[Any]:
        return call.result()
