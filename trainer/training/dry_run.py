"""Find out what a training run would do, up to its first step, without writing anything."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.dataset import input_pipeline, prepared_split
from trainer.training import cross_validation, precision
from trainer.training import train as train_lib
from trainer.training.build_run import build_run
from trainer.training.job import TrainingJob


def plan(job: TrainingJob) -> dict[str, Any]:
    """Check everything that a run checks before its first step, on one device.

    Pre-trained weights are downloaded as the run would.

    Returns:
      What the run would do, of JSON types: `workdir`; `images` and `positives`, the number of
      images and of positive ones by split; `backbone`, `weights` and `image_size`; `networks`, 1
      or one for each fold; `parameters` and `trainable`, the number of parameters of one network
      and of those that are trained; `epochs`, of both phases together, and `head_epochs`, those of
      them that train the head alone; `steps`, of one network over all epochs; `state`: `new`,
      `begun` or `finished`; and `dry_run`, True.

    Raises:
      ConfigError, DataError: what `train.train_and_evaluate` would raise before it trains.
    """
    job = precision.take_recorded(job)
    continues = train_lib.check_workdir(job)
    finished = train_lib.read_finished(job.workdir) is not None
    job = precision.choose(job, tf.distribute.get_strategy())
    keras.config.set_dtype_policy(job.settings.precision)
    input_pipeline.compute_per_replica_batch_size(
        job.settings.global_batch_size, 1, job.settings.gradient_accumulation_steps
    )
    splits = {
        name: prepared_split.load_split(job.data_dir, name, job.settings.cache)
        for name in ("train", "validation", "test")
    }
    train, validation = splits["train"], splits["validation"]
    if job.folds:
        pool = prepared_split.load_split(job.data_dir, "train+validation", job.settings.cache)
        in_first = cross_validation.assign_folds(pool, job.folds, job.settings.seed) == 0
        train, validation = (pool.select(np.flatnonzero(rows)) for rows in (~in_first, in_first))
    run = build_run(job, tf.distribute.get_strategy(), train, validation)
    steps = input_pipeline.count_steps_per_epoch(len(train), job.settings.global_batch_size)
    fell_back = run.architecture.backbone != job.settings.backbone
    return {
        "workdir": job.workdir,
        "images": {name: len(split) for name, split in splits.items()},
        "positives": {name: int(split.labels.sum()) for name, split in splits.items()},
        "backbone": run.architecture.backbone,
        "weights": "none" if fell_back else job.settings.weights,
        "image_size": job.dataset.image_size,
        "networks": job.folds or 1,
        "parameters": run.model.count_params(),
        "trainable": sum(
            int(np.prod(variable.shape)) for variable in run.model.trainable_variables
        ),
        "epochs": run.loop.epochs,
        "head_epochs": run.loop.epochs - job.settings.epochs,
        "steps": run.loop.epochs * steps,
        "state": "finished" if finished else "begun" if continues else "new",
        "dry_run": True,
    }


def format_plan(planned: Mapping[str, Any]) -> str:
    """Format what `plan` returned as lines for a terminal."""
    counts = ", ".join(
        f"{name} {number} ({planned['positives'][name]} positive)"
        for name, number in planned["images"].items()
    )
    networks = f"{planned['networks']} networks" if planned["networks"] > 1 else "one network"
    steps = planned["steps"] // planned["epochs"]
    head = planned["head_epochs"]
    phases = f" ({head} of the head alone, then {planned['epochs'] - head})" if head else ""
    begin = {
        "new": "would train",
        "begun": "would go on training",
        "finished": "finished already, would not train",
    }
    return (
        f"images of {planned['image_size']} px: {counts}\n"
        f"{begin[planned['state']]} {networks}: {planned['backbone']} (weights:"
        f" {planned['weights']}), {planned['parameters']:,} parameters, {planned['trainable']:,} of"
        f" them trained, {planned['epochs']} epochs of {steps} steps{phases}\n"
        f"would write artifact/, metrics.json, report.html, checkpoints/ and more to"
        f" {planned['workdir']}\n"
        "dry run: nothing was written"
    )
