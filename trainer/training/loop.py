"""The training loop: the same for one device, several GPUs of a host, and several hosts.

It owns the step counter, the position in the data and the checkpoint, so that a run that was killed
continues exactly. Everything that decides what comes next is in `State` or in a checkpointed
variable.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.dataset import input_pipeline
from trainer.errors import TrainingDivergedError
from trainer.network import cam
from trainer.network import model as model_lib
from trainer.program import telemetry
from trainer.training.clock import Clock, read_clock
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.gradient_clipping import clip_global_norm

Batch = Mapping[str, tf.Tensor]
"""`image` uint8 [b, size, size, 1], `label` float32 [b] and `weight` float32 [b] of one replica."""


@dataclasses.dataclass
class State:
    """How far a run has come; saved with every checkpoint.

    Attributes:
      epoch: the current epoch, from 0, counted over all phases.
      step: finished steps of the current epoch.
      total_steps: finished steps of the whole run.
      sums: of the current epoch, the sum of losses, of correct answers and of examples.
      history: one row per finished epoch.
      plateau_scale: factor that the plateau schedule has put on the learning rate.
      stopped_early: whether the run ends before its last epoch.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    plateau_scale: float = 1.0
    stopped_early: bool = False

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Add the current epoch's row to the history and begin the next epoch."""
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0.0]


class Interrupted(Exception):
    """A host was asked to stop. All hosts raise this at the same place."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """Several epochs with their own trainable variables and optimizer.

    Attributes:
      variables: the variables that are trained.
      optimizer: an optimizer built on them.
      learning_rate: function from the step within the phase to the learning rate of the head.
      clip_norm: largest norm of all gradients together; 0 for no limit.
    """

    epochs: int
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    learning_rate: Callable[[float], float]
    clip_norm: float = 0.0


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


class Loop:
    """Trains and predicts under one strategy."""

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        phases: Sequence[Phase],
        objective: Objective,
        average: WeightsAverage,
        xla: bool = False,
    ):
        """Build the training steps; `xla` compiles forward and backward pass with XLA."""
        self._model = model
        self.strategy = strategy
        self._phases = list(phases)
        self._average = average
        self._objective = objective
        self._xla = xla
        self._total_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._train = [tf.function(self._build_steps(phase)) for phase in phases]
        self._predict = tf.function(self._predict_step, reduce_retracing=True)

    @property
    def epochs(self) -> int:
        """Number of epochs in all phases together."""
        return sum(phase.epochs for phase in self._phases)

    def variables(self) -> list[tf.Variable]:
        """Return everything that a checkpoint must hold, in a fixed order."""
        kept = [variable.value for variable in self._model.variables]
        kept += [variable.value for phase in self._phases for variable in phase.optimizer.variables]
        return [*kept, *self._average.averages, self._total_steps]

    def weights(self) -> list[tf.Variable]:
        """Return the weights of the model alone."""
        return [variable.value for variable in self._model.weights]

    def predict(
        self,
        split: input_pipeline.Split,
        global_batch_size: int,
        mirrored: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Return the logits of a split, float32 [N], in its order; every host gets all of them.

        Args:
          mirrored: average the logits of each image and of its mirror image, left to right.
          should_stop: asked before every batch whether this host is to stop.

        Raises:
          Interrupted: a host is to stop.
        """
        if not len(split):
            return np.zeros(0, np.float32)
        batches = input_pipeline.make_batches(split, self.strategy, global_batch_size)
        logits = []
        for batch in telemetry.report_each(batches):
            logit, stops = self._predict(
                batch["image"], tf.constant(mirrored), tf.constant(float(should_stop()))
            )
            if stops:
                raise Interrupted
            logits.append(logit.numpy())
        return np.concatenate(logits)[: len(split)]

    def compute_maps(self, images: np.ndarray) -> np.ndarray:
        """Return class activation maps, float32 [B, h, w], of images uint8 [B, size, size, 1].

        No other host takes part, so that one host may call it alone.
        """
        return cam.grad_cam(self._model, self._model(tf.constant(images), training=False)).numpy()

    def train_epoch(
        self,
        split: input_pipeline.Split,
        state: State,
        global_batch_size: int,
        *,
        augmentation: input_pipeline.Augmentation | None,
        seed: int,
        steps_per_execution: int = 1,
        after_step: Callable[[State, Mapping[str, float]], None] = lambda state, measured: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, float]:
        """Train the rest of the current epoch, and update `state` after every call of the device.

        Args:
          steps_per_execution: steps in one call of the device.
          after_step: called between calls of the device, for checkpoints and progress, with `state`
            and what the call measured: `loss`, `learning_rate`, `images_per_second`, `input_wait`.
          should_stop: asked before every call of the device whether this host is to stop.

        Returns:
          `loss` and `accuracy` of the epoch, `learning_rate` at its end, `images_per_second`, and
          `input_wait`, the share of the time in which the device waited for images. The first call
          of a process, which compiles, doesn't count in the last two.

        Raises:
          TrainingDivergedError: the loss became NaN or infinite.
          Interrupted: a host is to stop; `state` describes the last finished step.
        """
        steps = input_pipeline.count_steps_per_epoch(len(split), global_batch_size)
        index, first_epoch = self._find_phase(state.epoch)
        phase, first_step = self._phases[index], (state.epoch - first_epoch) * steps
        batches = iter(
            input_pipeline.make_batches(
                split,
                self.strategy,
                global_batch_size,
                epoch=state.epoch,
                first_step=state.step,
                seed=seed,
                augmentation=augmentation,
                shuffle=True,
            )
        )
        clock = Clock(global_batch_size)
        while state.step < steps:
            count = min(steps_per_execution, steps - state.step)
            rates = [
                phase.learning_rate(first_step + state.step + i) * state.plateau_scale
                for i in range(steps_per_execution)
            ]
            measured, wait, stops = self._call_device(
                index, batches, rates, count, should_stop(), state
            )
            after_step(state, {**measured, **clock.record_call(count, wait)})
            if stops:
                raise Interrupted
        loss, correct, examples = state.sums
        last_rate = phase.learning_rate(first_step + steps - 1) * state.plateau_scale
        return {
            "loss": loss / examples,
            "accuracy": correct / examples,
            "learning_rate": last_rate,
            **clock.compute_average(),
        }

    def _find_phase(self, epoch: int) -> tuple[int, int]:
        """Return the index of the phase that `epoch` belongs to, and its first epoch."""
        first = 0
        for i, phase in enumerate(self._phases):
            if epoch < first + phase.epochs:
                return i, first
            first += phase.epochs
        raise IndexError(f"epoch {epoch} comes after the last of {first} epochs")

    def _call_device(
        self,
        index: int,
        batches: Iterator[Batch],
        rates: Sequence[float],
        count: int,
        stop: bool,
        state: State,
    ) -> tuple[dict[str, float], float, bool]:
        """Train `count` steps of phase `index` in one call of the device, and update `state`.

        Returns:
          `loss` and `learning_rate`; the seconds that the device waited for images; whether a host
          is to stop.

        Raises:
          TrainingDivergedError: the loss became NaN or infinite.
        """
        call = (
            batches,
            tf.constant(rates, tf.float32),
            tf.constant(count),
            tf.constant(float(stop)),
        )
        *sums, stops, wait = self._train[index](*call).numpy().tolist()
        state.step += count
        state.total_steps += count
        state.sums = [old + new for old, new in zip(state.sums, sums, strict=True)]
        if not np.isfinite(state.sums[0]):
            raise TrainingDivergedError(
                f"the loss became {state.sums[0]} in step {state.total_steps}"
                f" (epoch {state.epoch + 1}); lower the learning rate ({rates[count - 1]:.2g})"
                " or look for a damaged example"
            )
        measured = {"loss": sums[0] / sums[2], "learning_rate": rates[count - 1]}
        return measured, wait, bool(stops)

    def _build_steps(self, phase: Phase) -> Callable[..., tf.Tensor]:
        """Return the function that trains several steps of a phase on all replicas.

        Its result is float64 [5]: the sums of losses, correct answers, examples and hosts to stop,
        and the seconds that the device waited for images.
        """
        statistics = [variable.value for variable in model_lib.moving_statistics(self._model)]
        replica_step = self._build_replica_step(phase, statistics)

        def train_steps(
            batches: Any, rates: tf.Tensor, count: tf.Tensor, stop: tf.Tensor
        ) -> tf.Tensor:
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
                sums, moved = self.strategy.run(replica_step, args=(batch, stop))
                total += tf.cast(
                    self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None), tf.float64
                )
                if self.strategy.num_replicas_in_sync > 1:
                    # Each replica has updated its own statistics. They would differ, and a
                    # checkpoint would hold those of one replica.
                    for value, of_replicas in zip(statistics, moved, strict=True):
                        value.assign(
                            self.strategy.reduce(
                                tf.distribute.ReduceOp.MEAN, of_replicas, axis=None
                            )
                        )
                self._average.update(self._total_steps)
                self._total_steps.assign_add(1)
            return tf.concat([total, [wait]], 0)

        return train_steps

    def _build_replica_step(
        self, phase: Phase, statistics: Sequence[tf.Variable]
    ) -> Callable[[Batch, tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]:
        """Return the function that trains one step on one replica.

        It returns float32 [4], the sums of losses, correct answers, examples and hosts to stop; and
        the replica's values of `statistics`.
        """
        trainable = list(phase.variables)

        def backpropagate(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in trainable])
                logit = tf.squeeze(self._model(batch["image"], training=True)[model_lib.LOGIT], -1)
                losses = self._objective(batch["label"], logit)
                scaled = phase.optimizer.scale_loss(tf.reduce_sum(batch["weight"] * losses))
            return logit, losses, tape.gradient(scaled, [variable.value for variable in trainable])

        if self._xla:
            backpropagate = tf.function(backpropagate, jit_compile=True)

        def replica_step(batch: Batch, stop: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            logit, losses, gradients = backpropagate(batch)
            if phase.clip_norm:
                gradients = clip_global_norm(gradients, phase.clip_norm, phase.optimizer)
            phase.optimizer.apply(gradients, trainable)
            real = tf.cast(batch["weight"] > 0, tf.float32)
            correct = tf.cast((logit > 0) == (batch["label"] > 0.5), tf.float32)
            sums = tf.stack(
                [
                    tf.reduce_sum(real * losses),
                    tf.reduce_sum(real * correct),
                    tf.reduce_sum(real),
                    stop,
                ]
            )
            return sums, [tf.identity(value) for value in statistics]

        return replica_step

    def _predict_step(
        self, image: tf.Tensor, mirrored: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the logits, float32 [B], of all replicas, and the number of replicas to stop."""

        def compute_logit(image: tf.Tensor) -> tf.Tensor:
            return tf.squeeze(self._model(image, training=False)[model_lib.LOGIT], -1)

        def replica_step(image: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if mirrored:
                return (compute_logit(image) + compute_logit(tf.reverse(image, [2]))) / 2, stop
            return compute_logit(image), stop

        logits, stops = self.strategy.run(replica_step, args=(image, stop))
        return self.strategy.gather(logits, axis=0), self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, stops, axis=None
        )
