"""Choose the precision of training by what the devices multiply fastest."""

import dataclasses

import ml_collections
import tensorflow as tf
from absl import logging

from trainer import machine
from trainer.publishing import results
from trainer.training import strategy as strategy_lib
from trainer.training.checkpoints import read_settings
from trainer.training.job import TrainingJob

AUTO = "auto"
_BFLOAT16_CAPABILITY = (8, 0)
"""Compute capability of the first Nvidia GPUs (Ampere) with fast products in bfloat16."""
_SLOWER_ON_PROCESSORS = "mobilenet"
"""Backbones whose step takes longer in bfloat16 on a processor, see benchmarks/README.md."""


def take_recorded(job: TrainingJob) -> TrainingJob:
    """Return the job with the precision that its run began with, where the job leaves it open.

    So a run that continues on another machine keeps its precision.
    """
    if job.settings.precision != AUTO:
        return job
    recorded = read_settings(f"{job.workdir}/{results.SETTINGS}") or {}
    return _replace(job, recorded.get("config.precision", AUTO))


def choose(job: TrainingJob, strategy: tf.distribute.Strategy) -> TrainingJob:
    """Return the job with `auto` replaced: bfloat16 where it makes steps faster on every host.

    Raises:
      tf.errors.OpError: a host was lost.
    """
    if job.settings.precision != AUTO:
        return job
    is_fast = is_fast_in_bfloat16(job.settings.backbone)
    all_are_fast = all(strategy_lib.gather_from_hosts(strategy, is_fast))
    precision = "mixed_bfloat16" if all_are_fast else "float32"
    logging.info("This run computes in %s (--config.precision changes that).", precision)
    return _replace(job, precision)


def is_fast_in_bfloat16(backbone: str) -> bool:
    """Return whether bfloat16 makes steps faster on this host's GPUs, or its processor."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return machine.has_bfloat16_products() and not backbone.startswith(_SLOWER_ON_PROCESSORS)
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus
    ]
    return all(found is not None and found >= _BFLOAT16_CAPABILITY for found in capabilities)


def _replace(job: TrainingJob, precision: str) -> TrainingJob:
    settings = ml_collections.ConfigDict(job.settings)
    settings.precision = precision
    return dataclasses.replace(job, settings=settings)
