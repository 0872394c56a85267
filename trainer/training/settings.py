"""Check the settings of a run, and select those that may not change while a run continues."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ml_collections

from trainer.dataset.dataset_info import DatasetInfo
from trainer.errors import ConfigError
from trainer.evaluation import calibration
from trainer.network import backbones, saliency


class Rule(Protocol):
    """The values that a setting takes."""

    def check(self, value: Any) -> str | None:
        """Return what was expected, for a sentence, or None where the value is one of those."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; below `high` where `high` itself is excluded."""

    low: float
    high: float
    excludes_high: bool = False

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # NaN fails both comparisons.
        is_below = is_number and (value < self.high if self.excludes_high else value <= self.high)
        if is_below and self.low <= value:
            return None
        return f"a number from {self.low} to {'below ' if self.excludes_high else ''}{self.high}"


@dataclasses.dataclass(frozen=True)
class WholeNumber:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and self.low <= value <= self.high:
            return None
        return f"a whole number from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Widths:
    """Any number of layer widths, each a whole number from 1 to `high`."""

    high: int

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        width = WholeNumber(1, self.high)
        if isinstance(value, list | tuple) and all(width.check(each) is None for each in value):
            return None
        return f"comma-separated whole numbers from 1 to {self.high}, or ()"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Allows one of several texts."""

    values: tuple[str, ...]

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        if value in self.values:
            return None
        return f"{', '.join(self.values[:-1])} or {self.values[-1]}"


@dataclasses.dataclass(frozen=True)
class Switch:
    """True or False, or None where the run itself may decide."""

    may_be_open: bool = False

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        is_open = self.may_be_open and value is None
        return None if is_open or isinstance(value, bool) else "true or false"


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that `parse` checks, raising `ConfigError`; without `parse` it must not be blank."""

    expected: str
    parse: Callable[[str], Any] | None = None

    def check(self, value: Any) -> str | None:
        """Return what was expected, or None."""
        if not isinstance(value, str):
            return self.expected
        if not self.parse:
            return None if value.strip() else self.expected
        self.parse(value)
        return None


_EPOCHS = WholeNumber(0, 100_000)
_COUNT = WholeNumber(1, 1_000_000)
_SHARE = Number(0, 1, excludes_high=True)
_RATE = Number(0, 1000)
_STRENGTH = Number(0, 10)

RULES: Mapping[str, Rule] = {
    "backbone": Text("the name of a backbone", backbones.check_backbone),
    "weights": Text("imagenet, none or a path"),
    "input_scale": Choice(backbones.INPUT_SCALES),
    "fallback_backbone": Text(
        "the name of a backbone, or nothing",
        lambda name: backbones.check_backbone(name) if name else None,
    ),
    "pooling": Choice(("avg", "max")),
    "head_widths": Widths(65_536),
    "dropout": _SHARE,
    "unfreeze_layers": Text("all, a number, a share such as 70%, or the name of a layer"),
    "head_epochs": _EPOCHS,
    "head_learning_rate": _RATE,
    "epochs": _EPOCHS,
    "global_batch_size": WholeNumber(1, 65_536),
    "gradient_accumulation_steps": WholeNumber(1, 65_536),
    "reference_batch_size": WholeNumber(0, 65_536),
    "optimizer": Choice(("adamw", "sgd")),
    "learning_rate": _RATE,
    "backbone_lr_factor": Number(0, 100),
    "depth_lr_decay": Number(0, 100),
    "weight_decay": Number(0, 100),
    "clip_norm": _RATE,
    "schedule": Choice(("cosine", "plateau", "constant")),
    "warmup_epochs": Number(0, 100_000),
    "plateau_factor": Number(0, 1),
    "plateau_patience": _COUNT,
    "label_smoothing": _SHARE,
    "class_weights": Switch(),
    "ema_decay": _SHARE,
    "monitor": Choice(("auroc", "loss", "last")),
    "monitor_smoothing": _COUNT,
    "early_stopping_patience": WholeNumber(0, 1_000_000),
    "augmentation.horizontal_flip": Switch(),
    "augmentation.vertical_flip": Switch(),
    "augmentation.rotation": Number(0, 180),
    "augmentation.shift": Number(0, 1),
    "augmentation.zoom": _STRENGTH,
    "augmentation.contrast": _STRENGTH,
    "augmentation.brightness": _STRENGTH,
    "test_time_flip": Switch(may_be_open=True),
    "threshold_rule": Text("a threshold rule", calibration.check_rule),
    "abstain": _SHARE,
    "precision": Choice(("auto", "float32", "mixed_bfloat16", "mixed_float16")),
    "xla": Switch(),
    "steps_per_execution": WholeNumber(1, 10_000),
    "cache": Choice(("auto", "memory", "disk")),
    "checkpoint_every_steps": _COUNT,
    "keep_checkpoints": WholeNumber(1, 10_000),
    "deterministic": Switch(),
    "verify_engines": Switch(),
    "cam_methods": Text("methods, comma-separated", saliency.parse_exported_methods),
    "seed": WholeNumber(0, 2**32 - 1),
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
    "test_time_flip",
    "threshold_rule",
    "abstain",
    "recipe",
)
"""Settings that don't change what is learnt: a run may be continued under others."""


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
            expected = rule.check(values[key])
        except ConfigError as error:
            raise ConfigError(f"--config.{key}: {error}") from error
        if expected:
            raise ConfigError(f"--config.{key}={values[key]!r}: expected {expected}")
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


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, their keys joined by dots."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        rows |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return rows
