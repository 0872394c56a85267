"""The training loop: one loop for one device, several GPUs of a host, and several hosts.

It owns the step counter, the position in the data and the checkpoint, so that a run that was killed continues exactly.
Everything that decides what comes next is in `State` or in a checkpointed variable.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.dataset import input_pipeline
from trainer.errors import TrainingDivergedError
from trainer.network import cam
from trainer.network import model as model_lib
from trainer.program import telemetry
from trainer.training.clock import Clock, now
from trainer.training.exponential_moving_average import WeightsAverage


@dataclasses.dataclass
class State:
    """Where the run stands; saved with every checkpoint.

    Attributes:
      epoch: the one under way, counted over all phases.
      step: steps of it that are done.
      total_steps: of the whole run.
      sums: of the epoch under way: loss, correct answers and examples.
      history: one row per finished epoch.
      plateau_scale: factor on the learning rate that the plateau schedule has come to.
      stopped_early: no further epoch is wanted.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    plateau_scale: float = 1.0
    stopped_early: bool = False

    def finish_epoch(self, row: dict[str, float]) -> None:
        """The epoch under way gets its row of the history; the next one begins."""
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0.0]


class Interrupted(Exception):
    """A host was asked to stop: all of them do, at this same place."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs with its own trainable variables and optimizer.

    Attributes:
      variables: what is trained.
      optimizer: built on them.
      learning_rate: step within the phase, float -> learning rate of the head.
    """

    epochs: int
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    learning_rate: Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss: binary cross-entropy of smoothed labels, each class weighted."""

    label_smoothing: float
    class_weight: tuple[float, float]

    def __call__(self, label: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
        """Loss per example, float32 [B], for labels float32 [B] in {0, 1} and logits float32 [B]."""
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
        """`xla`: forward and backward pass are compiled by it."""
        self._model = model
        self.strategy = strategy
        self._phases = list(phases)
        self._average = average
        self._objective = objective
        self._xla = xla
        self._total_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._train = [tf.function(self._stepper(phase)) for phase in phases]
        self._predict = tf.function(self._predict_step, reduce_retracing=True)

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self._phases)

    def variables(self) -> list[tf.Variable]:
        """Everything that a checkpoint must hold, in a fixed order."""
        kept = [variable.value for variable in self._model.variables]
        kept += [variable.value for phase in self._phases for variable in phase.optimizer.variables]
        return [*kept, *self._average.averages, self._total_steps]

    def weights(self) -> list[tf.Variable]:
        """The model's weights alone."""
        return [variable.value for variable in self._model.weights]

    def phase_of(self, epoch: int) -> tuple[int, int]:
        """Index of the phase that `epoch` belongs to, and the epochs before that phase."""
        before = 0
        for i, phase in enumerate(self._phases):
            if epoch < before + phase.epochs:
                return i, before
            before += phase.epochs
        raise IndexError(f"epoch {epoch} is beyond the last of {before}")

    def predict(
        self,
        split: input_pipeline.Split,
        global_batch_size: int,
        mirrored: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Logits of a split, float32 [N], in its order; every worker gets all of them.

        Args:
          mirrored: each is the mean of the image's and of its mirror image's, left to right.
          stopping: asked before every batch, whether this host is to stop.

        Raises:
          Interrupted: a host is to stop.
        """
        if not len(split):
            return np.zeros(0, np.float32)
        batches = input_pipeline.batches(split, self.strategy, global_batch_size)
        logits = []
        for batch in telemetry.beating(batches):
            logit, stops = self._predict(
                batch["image"], tf.constant(mirrored), tf.constant(float(stopping()))
            )
            if stops:
                raise Interrupted
            logits.append(logit.numpy())
        return np.concatenate(logits)[: len(split)]

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Class activation maps of some images, uint8 [B, size, size, 1] -> float32 [B, h, w]; no collective, so one host may ask."""
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
        stopping: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, float]:
        """Runs the rest of the epoch that `state` stands in, and updates it after every call of the device.

        Args:
          after_step: called between calls of the device, the place for checkpoints and progress, with `state` and what the call
            measured: `loss`, `learning_rate`, `images_per_second`, `input_wait`.
          stopping: asked before every call of the device, whether this host is to stop.

        Returns:
          `loss` and `accuracy` of the epoch, `learning_rate` of its end, `images_per_second`, and `input_wait`, the share of the
          time in which the device waited for images. The first call of a process, which compiles, doesn't count in the latter two.

        Raises:
          TrainingDivergedError: the loss became NaN or infinite.
          Interrupted: a host is to stop; `state` stands behind the last step.
        """
        index, before = self.phase_of(state.epoch)
        phase, steps = (
            self._phases[index],
            input_pipeline.steps_per_epoch(len(split), global_batch_size),
        )
        batches = iter(
            input_pipeline.batches(
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
            done = (state.epoch - before) * steps + state.step
            rates = [
                phase.learning_rate(done + i) * state.plateau_scale
                for i in range(steps_per_execution)
            ]
            call = (
                batches,
                tf.constant(rates, tf.float32),
                tf.constant(count),
                tf.constant(float(stopping())),
            )
            *sums, stops, wait = self._train[index](*call).numpy().tolist()
            state.step += count
            state.total_steps += count
            state.sums = [old + new for old, new in zip(state.sums, sums, strict=True)]
            if not np.isfinite(state.sums[0]):
                raise TrainingDivergedError(
                    f"the loss became {state.sums[0]} in step {state.total_steps} (epoch {state.epoch + 1});"
                    f" lower the learning rate ({rates[count - 1]:.2g}) or look for a damaged example"
                )
            measured = {
                "loss": sums[0] / sums[2],
                "learning_rate": rates[count - 1],
                **clock.tick(count, wait),
            }
            after_step(state, measured)
            if stops:
                raise Interrupted
        loss, correct, examples = state.sums
        return {
            "loss": loss / examples,
            "accuracy": correct / examples,
            "learning_rate": phase.learning_rate((state.epoch - before + 1) * steps - 1)
            * state.plateau_scale,
            **clock.since_start(),
        }

    def _stepper(self, phase: Phase) -> Callable[..., tf.Tensor]:
        trainable = list(phase.variables)
        statistics = [variable.value for variable in model_lib.moving_statistics(self._model)]

        def backpropagate(
            batch: Mapping[str, tf.Tensor],
        ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in trainable])
                logit = tf.squeeze(self._model(batch["image"], training=True)[model_lib.LOGIT], -1)
                losses = self._objective(batch["label"], logit)
                scaled = phase.optimizer.scale_loss(tf.reduce_sum(batch["weight"] * losses))
            return logit, losses, tape.gradient(scaled, [variable.value for variable in trainable])

        if self._xla:
            backpropagate = tf.function(backpropagate, jit_compile=True)

        def replica_step(
            batch: Mapping[str, tf.Tensor], stop: tf.Tensor
        ) -> tuple[tf.Tensor, list[tf.Tensor]]:
            logit, losses, gradients = backpropagate(batch)
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

        def steps(batches: Any, rates: tf.Tensor, count: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
            # In float64, sums of a few float32 are exact: however many steps a call has, they come to the same.
            total, wait = tf.zeros(4, tf.float64), tf.zeros((), tf.float64)
            for i in tf.range(count):
                phase.optimizer.learning_rate.assign(rates[i])
                asked = now()
                with tf.control_dependencies([asked]):
                    batch = next(batches)
                with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                    wait += now() - asked
                sums, moved = self.strategy.run(replica_step, args=(batch, stop))
                total += tf.cast(
                    self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None), tf.float64
                )
                if self.strategy.num_replicas_in_sync > 1:
                    # Each replica moved its own; unshared, they would differ, and a checkpoint would hold one replica's.
                    for value, of_replicas in zip(statistics, moved, strict=True):
                        value.assign(
                            self.strategy.reduce(
                                tf.distribute.ReduceOp.MEAN, of_replicas, axis=None
                            )
                        )
                self._average.update(self._total_steps)
                self._total_steps.assign_add(1)
            return tf.concat([total, [wait]], 0)

        return steps

    def _predict_step(
        self, image: tf.Tensor, mirrored: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def logit(image: tf.Tensor) -> tf.Tensor:
            return tf.squeeze(self._model(image, training=False)[model_lib.LOGIT], -1)

        def replica_step(image: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if mirrored:
                return (logit(image) + logit(tf.reverse(image, [2]))) / 2, stop
            return logit(image), stop

        logits, stops = self.strategy.run(replica_step, args=(image, stop))
        return self.strategy.gather(logits, axis=0), self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, stops, axis=None
        )
