"""Measure how fast the device trains, and how long it waits for images."""

import math
import time
from collections.abc import Sequence

import tensorflow as tf


class Clock:
    """Measures images per second and the share of the time spent waiting for images."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._previous = time.monotonic()
        self._calls: list[tuple[int, float, float]] = []

    def record_call(self, steps: int, wait: float) -> dict[str, float]:
        """Record a compiled call of several steps that has just ended, and return its figures.

        Args:
          steps: number of training steps in the call.
          wait: seconds in which the device waited for images.

        Returns:
          `images_per_second`, and `input_wait`, the share of the time in [0, 1].
        """
        now = time.monotonic()
        self._calls.append((steps, now - self._previous, wait))
        self._previous = now
        return self._compute_figures(self._calls[-1:])

    def compute_average(self) -> dict[str, float]:
        """Return the figures of all calls but the first, which compiles, if there are others."""
        return self._compute_figures(self._calls[1:] or self._calls)

    def _compute_figures(self, calls: Sequence[tuple[int, float, float]]) -> dict[str, float]:
        if not calls:  # the epoch was already at its end
            return {"images_per_second": math.nan, "input_wait": math.nan}
        steps, seconds, waits = (sum(column) for column in zip(*calls, strict=True))
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "input_wait": min(1.0, waits / seconds),
        }


def read_clock() -> tf.Tensor:
    """Return the time in seconds, float64, from within a graph.

    `tf.timestamp` is refused where operations must be deterministic.
    """
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64, stateful=True), ())
