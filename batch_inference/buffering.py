"""Collect the elements of a bundle, so that one file holds many of them."""

import abc
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue


class Buffered(beam.DoFn, abc.ABC):
    """Gathers elements and hands them to `flush`, at the latest as the bundle ends.

    Global window only.
    """

    def __init__(self, most: int, seconds: float = math.inf):
        """Take how many elements may wait, and for how long."""
        super().__init__()
        self._most = most
        self._seconds = seconds
        self._waiting: list[Any] = []
        self._started = 0.0

    @abc.abstractmethod
    def flush(self, elements: Sequence[Any]) -> Iterator[Any]:
        """Yield the outputs for the buffered elements, at least one."""

    def is_full(self, waiting: Sequence[Any]) -> bool:
        """Return whether no more elements may wait."""
        return len(waiting) >= self._most

    def start_bundle(self) -> None:
        # A failed bundle may have left elements behind; the runner repeats them.
        self._waiting = []

    def process(self, element: Any) -> Iterator[Any]:
        if not self._waiting:
            self._started = time.monotonic()
        self._waiting.append(element)
        if self.is_full(self._waiting) or time.monotonic() - self._started >= self._seconds:
            yield from self._empty()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for result in self._empty():
            yield GlobalWindows.windowed_value(result)

    def _empty(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        if waiting:
            yield from self.flush(waiting)
