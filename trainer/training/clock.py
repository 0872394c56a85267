"""How fast the device trains, and how long it waits for images."""

import math
import time
from collections.abc import Sequence

import tensorflow as tf


class Clock:
    """Images per second and the share of the time spent waiting for them."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._previous = time.monotonic()
        self._calls: list[tuple[int, float, float]] = []

    def tick(self, steps: int, wait: float) -> dict[str, float]:
        """After a call of so many steps, in which the device waited so many seconds: the figures of this call."""
        now = time.monotonic()
        self._calls.append((steps, now - self._previous, wait))
        self._previous = now
        return self._figures(self._calls[-1:])

    def since_start(self) -> dict[str, float]:
        """The figures of all calls but the first, or of that where it was the only one."""
        return self._figures(self._calls[1:] or self._calls)

    def _figures(self, calls: Sequence[tuple[int, float, float]]) -> dict[str, float]:
        if not calls:  # the epoch was at its end already
            return {"images_per_second": math.nan, "input_wait": math.nan}
        steps, seconds, waits = (sum(column) for column in zip(*calls, strict=True))
        return {
            "images_per_second": steps * self._batch_size / seconds,
            "input_wait": min(1.0, waits / seconds),
        }


def now() -> tf.Tensor:
    """Seconds, float64, from within a graph; `tf.timestamp` is refused where ops must be deterministic."""
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64, stateful=True), ())
