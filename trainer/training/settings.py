"""The settings of a run: which values make no sense, and which may not change while it is going on."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from trainer.errors import ConfigError
from trainer.evaluation import calibration
from trainer.publishing import export
from trainer.publishing.report import flat

RUNTIME_KEYS = (
    "cache",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "steps_per_execution",
    "verify_engines",
    "cam_methods",
    "xla",
    "threshold_rule",
    "abstain",
    "recipe",
)
"""Settings that don't change what is learnt: a run may be continued under others."""
_CHOICES = {
    "monitor": ("auroc", "loss", "last"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}
_AT_LEAST_ONE = (
    "global_batch_size",
    "steps_per_execution",
    "checkpoint_every_steps",
    "keep_checkpoints",
)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises `ConfigError` for a setting that no run can end well with; what the model and its optimizer refuse, they refuse at once."""
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise ConfigError(
                f"{key}={config[key]!r}: expected {', '.join(choices[:-1])} or {choices[-1]}"
            )
    for key in _AT_LEAST_ONE:
        if config[key] < 1:
            raise ConfigError(f"{key}={config[key]}: expected 1 or more")
    if config.epochs + config.head_epochs < 1:
        raise ConfigError("no epoch would be trained; set --config.epochs to 1 or more")
    calibration.check_rule(config.threshold_rule)
    calibration.check_abstain(config.abstain)
    export.methods(config.cam_methods)


def recorded(
    config: ml_collections.ConfigDict, dataset: Mapping[str, Any], folds: int
) -> dict[str, Any]:
    """What must not change between the calls of one run, with flat keys; `dataset` is the metadata of the prepared data."""
    kept = {
        f"config.{key}": value
        for key, value in flat(config.to_dict()).items()
        if key not in RUNTIME_KEYS
    }
    return {
        **kept,
        "folds": folds,
        "data.fingerprint": dataset["fingerprint"],
        "data.image_size": dataset["image_size"],
    }
