"""Map elements in a thread pool, ahead of the next step."""

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import cv2
import threadpoolctl
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from trainer import machine

_REMOTE_THREADS = 32
"""Threads where files are remote: they wait for the network, so there may be more than cores."""
_GROUP = 4
"""Elements that a thread takes at once where files are local: a worker process is then asked for
several in one message, while the first process is busy with others."""
_SWITCH_SECONDS = 0.0005


@dataclasses.dataclass(frozen=True)
class PoolSize:
    """Says how much of a map runs at once.

    Attributes:
      window: elements that may be under way.
      threads: of each worker; None for one per core of that worker.
      group: elements that a thread takes at once.
    """

    window: int
    threads: int | None
    group: int = 1

    @classmethod
    def choose(cls, batch_size: int, remote: bool) -> "PoolSize":
        """Return the size that keeps a network busy that takes `batch_size` images at once."""
        if remote:
            return cls(batch_size + 2 * _REMOTE_THREADS, _REMOTE_THREADS)
        return cls(batch_size + _GROUP * machine.cores(), None, _GROUP)


class ConcurrentMap(beam.DoFn):
    """Maps groups of elements in a pool of threads; results keep the order of the elements.

    While a later step of the same bundle works (the network, in C++), the pool goes on with up to
    `window` elements. Scoring needs no other scheduling. The function should let other threads run,
    as reading, decoding and encoding do. Global window only.
    """

    def __init__(self, function: Callable[[Sequence[Any]], Iterable[Any]], size: PoolSize):
        """Take the function and the size of the pool.

        Args:
          function: returns the results of several elements. If it returns a generator, that runs
            as its results are taken.
          size: how many elements run at once.
        """
        super().__init__()
        self._function = function
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._group: list[Any] = []
        self._pending: collections.deque[Future] = collections.deque()

    def setup(self) -> None:
        # The pool uses the cores already: threads inside of each call cost more in waiting than
        # they bring.
        cv2.setNumThreads(1)
        threadpoolctl.threadpool_limits(1, user_api="blas")
        # By default, a thread waits 5 ms for the interpreter while another one computes. The answer
        # of a worker would lie there for as long as the worker took to make it.
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._pool = ThreadPoolExecutor(self._size.threads or machine.cores() + 1)

    def start_bundle(self) -> None:
        # A bundle that failed may have left some behind; its elements come again.
        self._group = []
        self._pending.clear()

    def process(self, element: Any) -> Iterable[Any]:
        self._group.append(element)
        if len(self._group) < self._size.group:
            return ()
        self._submit()
        is_full = len(self._pending) * self._size.group > self._size.window
        return self._pending.popleft().result() if is_full else ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._group:
            self._submit()
        while self._pending:
            for result in self._pending.popleft().result():
                yield GlobalWindows.windowed_value(result)

    def _submit(self) -> None:
        assert self._pool is not None, "setup comes first"
        group, self._group = self._group, []
        self._pending.append(self._pool.submit(self._function, group))

    def teardown(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
