"""Check the settings of a run, and select those that may not change while a run continues."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from trainer.dataset.dataset_info import DatasetInfo
from trainer.errors import ConfigError
from trainer.evaluation import calibration
from trainer.network import backbones, saliency
from trainer.network.flips import PASSES


@dataclasses.dataclass(frozen=True)
class Rule:
    """The values that a setting takes.

    Attributes:
      expected: what they are, for a sentence.
      accepts: returns whether a value is one of them; may raise `ConfigError` instead.
    """

    expected: str
    accepts: Callable[[Any], bool]


def _number(low: float, high: float, excludes_high: bool = False) -> Rule:
    """Return the rule of a finite number from `low` to `high`, or below `high`."""

    def accepts(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # NaN fails both comparisons.
        return is_number and low <= value and (value < high if excludes_high else value <= high)

    return Rule(f"a number from {low} to {'below ' if excludes_high else ''}{high}", accepts)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _whole_number(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: _is_whole(value, low, high))


def _widths(high: int) -> Rule:
    """Return the rule of any number of layer widths, each a whole number from 1 to `high`."""
    return Rule(
        f"comma-separated whole numbers from 1 to {high}, or ()",
        lambda value: (
            isinstance(value, list | tuple) and all(_is_whole(width, 1, high) for width in value)
        ),
    )


def _choice(*values: str) -> Rule:
    return Rule(f"{', '.join(values[:-1])} or {values[-1]}", lambda value: value in values)


def _switch() -> Rule:
    return Rule("true or false", lambda value: isinstance(value, bool))


def _text(expected: str) -> Rule:
    """Return the rule of a text that is not blank."""
    return Rule(expected, lambda value: isinstance(value, str) and bool(value.strip()))


def _parsed(expected: str, parse: Callable[[str], object]) -> Rule:
    """Return the rule of a text that `parse` checks, raising `ConfigError`."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        parse(value)
        return True

    return Rule(expected, accepts)


_EPOCHS = _whole_number(0, 100_000)
_COUNT = _whole_number(1, 1_000_000)
_SHARE = _number(0, 1, excludes_high=True)
_RATE = _number(0, 1000)
_STRENGTH = _number(0, 10)

RULES: Mapping[str, Rule] = {
    "backbone": _parsed("the name of a backbone", backbones.check_backbone),
    "weights": _text("imagenet, none or a path"),
    "input_scale": _choice(*backbones.INPUT_SCALES),
    "fallback_backbone": _parsed(
        "the name of a backbone, or nothing",
        lambda name: backbones.check_backbone(name) if name else None,
    ),
    "pooling": _choice("avg", "max"),
    "head_widths": _widths(65_536),
    "dropout": _SHARE,
    "unfreeze_layers": _text("all, a number, a share such as 70%, or the name of a layer"),
    "head_epochs": _EPOCHS,
    "head_learning_rate": _RATE,
    "epochs": _EPOCHS,
    "global_batch_size": _whole_number(1, 65_536),
    "gradient_accumulation_steps": _whole_number(1, 65_536),
    "reference_batch_size": _whole_number(0, 65_536),
    "optimizer": _choice("adamw", "sgd"),
    "learning_rate": _RATE,
    "backbone_lr_factor": _number(0, 100),
    "depth_lr_decay": _number(0, 100),
    "weight_decay": _number(0, 100),
    "clip_norm": _RATE,
    "schedule": _choice("cosine", "plateau", "constant"),
    "warmup_epochs": _number(0, 100_000),
    "plateau_factor": _number(0, 1),
    "plateau_patience": _COUNT,
    "label_smoothing": _SHARE,
    "class_weights": _switch(),
    "ema_decay": _SHARE,
    "monitor": _choice("auroc", "loss", "last"),
    "monitor_smoothing": _COUNT,
    "early_stopping_patience": _whole_number(0, 1_000_000),
    "augmentation.horizontal_flip": _switch(),
    "augmentation.vertical_flip": _switch(),
    "augmentation.rotation": _number(0, 180),
    "augmentation.shift": _number(0, 1),
    "augmentation.zoom": _STRENGTH,
    "augmentation.contrast": _STRENGTH,
    "augmentation.brightness": _STRENGTH,
    "test_time_flips": _choice("auto", *PASSES),
    "threshold_rule": _parsed("a threshold rule", calibration.check_rule),
    "abstain": _SHARE,
    "precision": _choice("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "xla": _switch(),
    "steps_per_execution": _whole_number(1, 10_000),
    "cache": _choice("auto", "memory", "disk"),
    "checkpoint_every_steps": _COUNT,
    "keep_checkpoints": _whole_number(1, 10_000),
    "deterministic": _switch(),
    "verify_engines": _switch(),
    "cam_methods": _parsed("methods, comma-separated", saliency.parse_exported_methods),
    "seed": _whole_number(0, 2**32 - 1),
}
"""What each setting of `configs/default.py` takes, by its name."""

RUNTIME_KEYS = (
    "cache",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "steps_per_execution",
    "verify_engines",
    "cam_methods",
    "xla",
    "test_time_flips",
    "threshold_rule",
    "abstain",
    "recipe",
)
"""Settings that don't change what is learnt: a run may be continued under others."""
_SHARED_RUNTIME_KEYS = ("steps_per_execution", "test_time_flips", "xla")
"""Those of `RUNTIME_KEYS` that must be equal on all hosts, because they change what the hosts
compute together."""


def check(settings: ml_collections.ConfigDict) -> None:
    """Check every setting against its rule.

    What depends on the data or on files is checked when the model is built, before the first step.

    Raises:
      ConfigError: names the setting, its value, and what was expected.
    """
    values = flatten(settings.to_dict())
    for key, rule in RULES.items():
        if key not in values:
            raise ConfigError(f"the recipe has no setting {key}; start it from configs/default.py")
        try:
            is_accepted = rule.accepts(values[key])
        except ConfigError as error:
            raise ConfigError(f"--config.{key}: {error}") from error
        if not is_accepted:
            raise ConfigError(f"--config.{key}={values[key]!r}: expected {rule.expected}")
    if settings.epochs + settings.head_epochs < 1:
        raise ConfigError("no epoch would be trained; set --config.epochs to 1 or more")


def select_recorded(
    settings: ml_collections.ConfigDict, dataset: DatasetInfo, folds: int
) -> dict[str, Any]:
    """Return what must not change between the calls of one run, by name."""
    values = flatten(settings.to_dict())
    return {
        **{f"config.{key}": values[key] for key in values if key not in RUNTIME_KEYS},
        "folds": folds,
        "data.fingerprint": dataset.fingerprint,
        "data.image_size": dataset.image_size,
    }


def select_shared(
    settings: ml_collections.ConfigDict, dataset: DatasetInfo, folds: int
) -> dict[str, Any]:
    """Return what must be the same on all hosts of one run, by name."""
    values = flatten(settings.to_dict())
    return {
        **select_recorded(settings, dataset, folds),
        **{f"config.{key}": values[key] for key in _SHARED_RUNTIME_KEYS},
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, their keys joined by dots."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        rows |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return rows
