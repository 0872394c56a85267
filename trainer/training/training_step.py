"""Build the compiled call of training: several steps of a phase."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.network import model as model_lib
from trainer.network import trainable_layers
from trainer.network.replica_dropout import ReplicaDropout
from trainer.training.clock import read_clock
from trainer.training.exponential_moving_average import WeightsAverage

Batch = Mapping[str, tf.Tensor]
"""`image` uint8 [b, size, size, 1], `label` float32 [b] and `weight` float32 [b] of one replica."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """Several epochs that share trainable variables and an optimizer.

    Attributes:
      epochs: number of epochs.
      variables: the variables that are trained.
      optimizer: an optimizer built on them.
      learning_rate: function from the step within the phase to the learning rate of the head.
      clip_norm: largest norm of all gradients together; 0 for no limit.
      micro_batches: parts of a replica's batch whose gradients are computed one after the other.
    """

    epochs: int
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    learning_rate: Callable[[float], float]
    clip_norm: float = 0.0
    micro_batches: int = 1


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss: binary cross-entropy of smoothed labels, with a weight for each class.

    Attributes:
      label_smoothing: in [0, 1).
      class_weight: weight of the negative and of the positive class.
    """

    label_smoothing: float
    class_weight: tuple[float, float]

    def __call__(self, label: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
        """Return the loss per example, float32 [B].

        Args:
          label: float32 [B] in {0, 1}.
          logit: float32 [B].
        """
        smoothed = label * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        loss = tf.nn.sigmoid_cross_entropy_with_logits(smoothed, logit)
        return loss * tf.where(label > 0.5, self.class_weight[1], self.class_weight[0])


def build_train_steps(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    phase: Phase,
    objective: Objective,
    average: WeightsAverage,
    total_steps: tf.Variable,
    xla: bool,
) -> Callable[..., tf.Tensor]:
    """Return the function that trains several steps of a phase on all replicas.

    Args:
      model: from uint8 [B, size, size, 1] to a dict with `logit`, float32 [B, 1].
      strategy: runs each step on all replicas.
      phase: its variables are trained, by its optimizer.
      objective: the loss per example.
      average: updated after every step.
      total_steps: int64 [], counts the steps of the run.
      xla: whether to compile forward and backward pass with XLA.

    Returns:
      A function of an iterator of `Batch`; the learning rate of each step, float32 [S]; the number
      of steps to train, int32 [], at most S; and 1 if this host is to stop, float32 []. It returns
      float64 [5]: the sums of losses, correct answers, examples and hosts
      to stop, and the seconds that the device waited for images.
    """
    statistics = [variable.value for variable in trainable_layers.moving_statistics(model)]
    replica_step = _build_replica_step(model, phase, objective, statistics, xla)

    def train_steps(batches: Any, rates: tf.Tensor, count: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        # Sums of a few float32 are exact in float64, so that the number of steps in a call
        # doesn't change them.
        total, wait = tf.zeros(4, tf.float64), tf.zeros((), tf.float64)
        for i in tf.range(count):
            phase.optimizer.learning_rate.assign(rates[i])
            started = read_clock()
            with tf.control_dependencies([started]):
                batch = next(batches)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                wait += read_clock() - started
            sums, moved = strategy.run(replica_step, args=(batch, stop))
            total += tf.cast(
                strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None), tf.float64
            )
            if strategy.num_replicas_in_sync > 1:
                # Each replica has updated its own statistics. They would differ, and a
                # checkpoint would hold those of one replica.
                for value, of_replicas in zip(statistics, moved, strict=True):
                    value.assign(
                        strategy.reduce(tf.distribute.ReduceOp.MEAN, of_replicas, axis=None)
                    )
            average.update(total_steps)
            total_steps.assign_add(1)
        return tf.concat([total, [wait]], 0)

    return train_steps


def _build_replica_step(
    model: keras.Model,
    phase: Phase,
    objective: Objective,
    statistics: Sequence[tf.Variable],
    xla: bool,
) -> Callable[[Batch, tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]:
    """Return the function that trains one step on one replica.

    It returns float32 [4], the sums of losses, correct answers, examples and hosts to stop; and
    the replica's values of `statistics`.

    The weights of a global batch sum to 1, so the gradients of its micro-batches add up to its own.
    Batch normalisation that trains normalises each micro-batch by itself, and moves its statistics
    after each.
    """
    trainable = list(phase.variables)
    for layer in model.layers:
        if isinstance(layer, ReplicaDropout):
            layer.micro_batches = phase.micro_batches

    def backpropagate(batch: Batch) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in trainable])
            logit = tf.squeeze(model(batch["image"], training=True)[model_lib.LOGIT], -1)
            losses = objective(batch["label"], logit)
            scaled = phase.optimizer.scale_loss(tf.reduce_sum(batch["weight"] * losses))
        gradients = tape.gradient(scaled, [variable.value for variable in trainable])
        real = tf.cast(batch["weight"] > 0, tf.float32)
        correct = tf.cast((logit > 0) == (batch["label"] > 0.5), tf.float32)
        sums = [tf.reduce_sum(real * losses), tf.reduce_sum(real * correct), tf.reduce_sum(real)]
        return tf.stack(sums), gradients

    if xla:
        backpropagate = tf.function(backpropagate, jit_compile=True)

    def accumulate(batch: Batch) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if phase.micro_batches == 1:
            return backpropagate(batch)
        parts = {
            name: tf.reshape(values, (phase.micro_batches, -1, *values.shape[1:]))
            for name, values in batch.items()
        }
        nothing = tf.zeros(3), [tf.zeros(variable.shape) for variable in trainable]
        # One part at a time, so that the memory holds the activations of one.
        return tf.foldl(
            lambda total, part: tf.nest.map_structure(tf.add, total, backpropagate(part)),
            parts,
            nothing,
            parallel_iterations=1,
        )

    def replica_step(batch: Batch, stop: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        sums, gradients = accumulate(batch)
        if phase.clip_norm:
            gradients = clip_global_norm(gradients, phase.clip_norm, phase.optimizer)
        phase.optimizer.apply(gradients, trainable)
        return tf.concat([sums, [stop]], 0), [tf.identity(value) for value in statistics]

    return replica_step


def clip_global_norm(
    gradients: Sequence[tf.Tensor], limit: float, optimizer: keras.optimizers.Optimizer
) -> list[tf.Tensor]:
    """Scale the gradients of all replicas together down to a norm of `limit`, if it is larger.

    Keras's `global_clipnorm` looks at the gradients of one replica, before they are summed.

    Args:
      gradients: of this replica, as the tape returned them; the global gradients are their sums.
      limit: largest L2 norm of all of them together (Pascanu et al. 2013, arXiv:1211.5063).
      optimizer: what the gradients are given to. It may have scaled the loss, and sums over the
        replicas.

    Returns:
      This replica's equal share of the clipped sums.
    """
    context = tf.distribute.get_replica_context()
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    clipped, _ = tf.clip_by_global_norm(summed, optimizer.scale_loss(tf.constant(limit)))
    return [gradient / context.num_replicas_in_sync for gradient in clipped]


def build_predict_step(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return the function that scores a batch on all replicas.

    It takes images uint8 [B, size, size, 1], whether all are reversed along their height and their
    width, bool [2], and whether this replica is to stop, 0 or 1. It returns the logits, float32
    [B], of all replicas, and the number of replicas to stop.
    """

    def predict_step(
        image: tf.Tensor, reverse: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def replica_step(image: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            for axis in (1, 2):
                image = tf.where(reverse[axis - 1], tf.reverse(image, [axis]), image)
            # Without the identity, `reduce` would not take `stop` for a replica's value.
            return tf.squeeze(model(image, training=False)[model_lib.LOGIT], -1), tf.identity(stop)

        logits, stops = strategy.run(replica_step, args=(image, stop))
        return strategy.gather(logits, axis=0), strategy.reduce(
            tf.distribute.ReduceOp.SUM, stops, axis=None
        )

    return predict_step
