"""Average the weights over the last steps of training, for evaluation and export."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class WeightsAverage:
    """Exponential moving average of the weights that training changes (Polyak & Juditsky 1992)."""

    def __init__(self, weights: Sequence[keras.Variable], decay: float):
        """Create the averages; with `decay` 0 there are none."""
        self._decay = decay
        self._weights = [weight.value for weight in weights] if decay else []
        self.averages = [
            tf.Variable(weight, trainable=False, name="average") for weight in self._weights
        ]

    def update(self, step: tf.Tensor) -> None:
        """Update the averages after optimizer step number `step`, an integer scalar from 0.

        Early averages decay faster, so that the initial weights are forgotten.
        """
        if not self.averages:
            return
        decay = tf.minimum(
            self._decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32))
        )
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.assign(decay * average + (1.0 - decay) * tf.cast(weight, average.dtype))

    @contextlib.contextmanager
    def use_averages(self) -> Iterator[None]:
        """Use the averages as the weights inside this block, and restore the weights after it."""
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
