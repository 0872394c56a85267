"""The weights that are evaluated and exported: an average over the last of training."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class WeightsAverage:
    """Exponential moving average of the weights that training changes (Polyak & Juditsky 1992), swapped in for evaluation."""

    def __init__(self, weights: Sequence[keras.Variable], decay: float):
        self._decay = decay
        self._weights = [weight.value for weight in weights] if decay else []
        self.averages = [
            tf.Variable(weight, trainable=False, name="average") for weight in self._weights
        ]

    def update(self, step: tf.Tensor) -> None:
        """After optimizer step number `step`, from 0; early averages forget faster, so that they don't remember the start."""
        if not self.averages:
            return
        decay = tf.minimum(
            self._decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32))
        )
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.assign(decay * average + (1.0 - decay) * tf.cast(weight, average.dtype))

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The averages are the weights in this block, however it ends."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, weight in zip(self.averages, self._weights, strict=True):
            held = weight.numpy()
            weight.assign(average.numpy())
            average.assign(held)
