"""Hold together everything that one training run is made of."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from trainer.dataset.prepared_split import Split
from trainer.network import model as model_lib
from trainer.network.flips import PASSES, Flips
from trainer.network.serving import Member
from trainer.publishing.export import copy_in_float32
from trainer.publishing.trained import Origin
from trainer.training import strategy as strategy_lib
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.job import TrainingJob
from trainer.training.loop import Loop
from trainer.training.training_step import Objective


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that one training run is made of, see `build_run.build_run`."""

    job: TrainingJob
    model: keras.Model
    architecture: model_lib.Architecture
    origin: Origin
    loop: Loop
    average: WeightsAverage
    objective: Objective
    train: Split
    validation: Split

    @property
    def is_chief(self) -> bool:
        """Return whether this host writes the results."""
        return strategy_lib.is_chief(self.loop.strategy)

    def convert_to_float32(self) -> "Run":
        """Return the trained run with its network in float32, as the artifact has it.

        So the figures of a run, and the operating point fitted on them, are those of its artifact.
        """
        if self.job.settings.precision == "float32":
            return self
        strategy = self.loop.strategy
        with strategy.scope():
            model = copy_in_float32(Member(self.model, self.architecture)).model
            average = WeightsAverage([], 0)
            loop = Loop(model, strategy, [], self.objective, average)
        return dataclasses.replace(self, model=model, loop=loop, average=average)

    def predict(
        self,
        split: Split,
        axes: tuple[int, ...] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Return the logits of a split, float32 [N], see `Loop.predict`."""
        settings = self.job.settings
        at_once = settings.global_batch_size // settings.gradient_accumulation_steps
        return self.loop.predict(split, at_once, axes, should_stop)

    def score(self, split: Split, candidates: Sequence[Flips]) -> dict[Flips, np.ndarray]:
        """Return the logits of a split, float32 [N], by the flipped copies that are scored.

        Args:
          candidates: the last one has all passes of the others.
        """
        logits = {axes: self.predict(split, axes) for axes in PASSES[candidates[-1]]}
        return {
            flips: np.mean([logits[axes] for axes in PASSES[flips]], axis=0) for flips in candidates
        }
