"""What a training run would do, found out as the run itself would, up to its first step; nothing is written."""

import dataclasses

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from trainer import storage
from trainer.dataset import input_pipeline
from trainer.publishing import results
from trainer.training import checkpoints, cross_validation, settings
from trainer.training import train as train_lib
from trainer.training.build_run import assemble


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that may start, go on, or is finished.

    Attributes:
      images: by split.
      networks: 1, or one for each fold.
      parameters: of one network; `trainable` are those that are trained.
      steps: of one network, over all epochs.
      state: `new`, `begun` or `finished`.
    """

    workdir: str
    images: dict[str, int]
    positives: dict[str, int]
    backbone: str
    weights: str
    image_size: int
    networks: int
    parameters: int
    trainable: int
    epochs: int
    steps: int
    state: str
    dry_run: bool = True

    def __str__(self) -> str:
        counts = ", ".join(
            f"{name} {number} ({self.positives[name]} positive)"
            for name, number in self.images.items()
        )
        what = f"{self.networks} networks" if self.networks > 1 else "one network"
        begin = {
            "new": "would train",
            "begun": "would go on training",
            "finished": "finished already, would not train",
        }
        return (
            f"images of {self.image_size} px: {counts}\n"
            f"{begin[self.state]} {what}: {self.backbone} (weights: {self.weights}), {self.parameters:,} parameters,"
            f" {self.trainable:,} of them trained, {self.epochs} epochs of {self.steps // self.epochs} steps\n"
            f"would write artifact/, metrics.json, report.html, checkpoints/ and more to {self.workdir}\n"
            "dry run: nothing was written"
        )


def plan(config: ml_collections.ConfigDict, data_dir: str, workdir: str, folds: int = 0) -> Plan:
    """Checks all that a run checks before its first step, on one device; pre-trained weights are fetched as the run would.

    Raises:
      ConfigError, DataError: what `train.train_and_evaluate` would raise before it trains.
    """
    dataset = input_pipeline.metadata(data_dir)
    settings.check(config)
    begun = train_lib.is_begun(workdir)
    if begun:
        checkpoints.check_same_run(
            f"{workdir}/{train_lib.SETTINGS}", settings.recorded(config, dataset, folds)
        )
    finished = storage.exists(f"{workdir}/{results.METRICS}")
    keras.config.set_dtype_policy(config.precision)
    splits = {
        name: input_pipeline.load_split(data_dir, name, config.cache)
        for name in ("train", "validation", "test")
    }
    train, validation = splits["train"], splits["validation"]
    if folds:
        pool = input_pipeline.load_split(data_dir, "train+validation", config.cache)
        of_first = cross_validation.assign(pool, folds, config.seed) == 0
        train, validation = (
            pool.select(np.flatnonzero(~of_first)),
            pool.select(np.flatnonzero(of_first)),
        )
    model, architecture, run = assemble(
        config, tf.distribute.get_strategy(), dataset, train, validation, workdir
    )
    return Plan(
        workdir,
        {name: len(split) for name, split in splits.items()},
        {name: int(split.labels.sum()) for name, split in splits.items()},
        architecture.backbone,
        config.weights if architecture.backbone == config.backbone else "none",
        dataset["image_size"],
        folds or 1,
        model.count_params(),
        sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        run.loop.epochs,
        run.loop.epochs * input_pipeline.steps_per_epoch(len(train), config.global_batch_size),
        "finished" if finished else "begun" if begun else "new",
    )
