"""Train and predict in one loop: on one device, several GPUs of a host, or several hosts.

It owns the step counter, the position in the data and the checkpoint, so that a run that was killed
continues exactly. Everything that decides what comes next is in `State` or in a checkpointed
variable.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.dataset import input_pipeline, prepared_split
from trainer.dataset.augmentation import Augmentation
from trainer.errors import TrainingDivergedError
from trainer.network import cam
from trainer.program import telemetry
from trainer.training.clock import Clock
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.training_step import (
    Batch,
    Objective,
    Phase,
    build_predict_step,
    build_train_steps,
)


@dataclasses.dataclass
class State:
    """How far a run has come; it is saved with every checkpoint.

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
        self._total_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._train = [
            tf.function(
                build_train_steps(
                    model, strategy, phase, objective, average, self._total_steps, xla
                )
            )
            for phase in phases
        ]
        self._predict = tf.function(build_predict_step(model, strategy), reduce_retracing=True)

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
        split: prepared_split.Split,
        global_batch_size: int,
        axes: tuple[int, ...] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Return the logits of a split, float32 [N], in its order; every host gets all of them.

        Args:
          axes: of an image [height, width] from 1, along which all are reversed first.
          should_stop: asked before every batch whether this host is to stop.

        Raises:
          Interrupted: a host is to stop.
        """
        if not len(split):
            return np.zeros(0, np.float32)
        batches = input_pipeline.make_batches(split, self.strategy, global_batch_size)
        reverse, logits = tf.constant([axis in axes for axis in (1, 2)]), []
        for batch in telemetry.report_each(batches):
            logit, stops = self._predict(batch["image"], reverse, tf.constant(float(should_stop())))
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
        split: prepared_split.Split,
        state: State,
        global_batch_size: int,
        *,
        augmentation: Augmentation | None,
        seed: int,
        steps_per_execution: int = 1,
        after_step: Callable[[State, Mapping[str, float]], None] = lambda state, measured: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, float]:
        """Train the rest of the current epoch, and update `state` after every compiled call.

        Args:
          split: the images to train on, with their labels.
          state: how far the run has come; it says where in which epoch to begin.
          global_batch_size: images of a step, on all replicas together.
          augmentation: how images are changed; None leaves them as they are.
          seed: of the order of the images and of the augmentation.
          steps_per_execution: steps in one compiled call.
          after_step: called after every compiled call, for checkpoints and progress, with `state`
            and what the call measured: `loss`, `learning_rate`, `images_per_second`, `input_wait`.
          should_stop: asked before every compiled call whether this host is to stop.

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
            measured, wait, stops = self._call_steps(
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

    def _call_steps(
        self,
        index: int,
        batches: Iterator[Batch],
        rates: Sequence[float],
        count: int,
        stop: bool,
        state: State,
    ) -> tuple[dict[str, float], float, bool]:
        """Train `count` steps of phase `index` in one compiled call, and update `state`.

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
