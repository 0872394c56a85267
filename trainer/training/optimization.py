"""Which variables learn, how fast, and when: phases, optimizers, schedules."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import ml_collections
from absl import logging

from trainer.errors import ConfigError
from trainer.network import model as model_lib
from trainer.training.loop import Phase


def phases(
    model: keras.Model, config: ml_collections.ConfigDict, steps_per_epoch: int, pretrained: bool
) -> list[Phase]:
    """Phase one trains the head on the frozen backbone; phase two fine-tunes.

    A backbone that starts from random weights (not `pretrained`) is trained whole and from the first step: frozen, it would be
    noise. Call it under the strategy's scope: it creates the optimizers' variables.
    """
    model_lib.freeze(
        model, config.unfreeze_layers if pretrained else "all", train_batch_norm=not pretrained
    )
    depth, factor = model_lib.depths(model), batch_factor(config)
    found = []
    if config.head_epochs and pretrained:
        head = [
            variable
            for layer in model_lib.head_layers(model)
            for variable in layer.trainable_variables
        ]
        rate = schedule(
            "cosine", config.head_learning_rate * factor, config.head_epochs * steps_per_epoch, 0
        )
        found.append(Phase(config.head_epochs, head, _optimizer(config, head, {}), rate))
    if config.epochs:
        trained = list(model.trainable_variables)
        scale = {path: _rate_at(d, config) for path, d in depth.items() if not _is_head(path)}
        warmup = config.warmup_epochs * steps_per_epoch
        rate = schedule(
            config.schedule, config.learning_rate * factor, config.epochs * steps_per_epoch, warmup
        )
        found.append(Phase(config.epochs, trained, _optimizer(config, trained, scale), rate))
        _tell(config, list(scale.values()))
    return found


def _tell(config: ml_collections.ConfigDict, shares: Sequence[float]) -> None:
    """Says by what rule the rates of fine-tuning were scaled, and what came of it; `shares`: what backbone variables get of the head's."""
    peak = config.learning_rate * batch_factor(config)
    backbone = f"{peak * min(shares):.2g} to {peak * max(shares):.2g}" if shares else "frozen"
    kind = "in proportion to" if config.optimizer == "sgd" else "by the square root of"
    scaled = f"scaled {kind} the batch, {config.global_batch_size} / {config.reference_batch_size}"
    rule = scaled if config.reference_batch_size else "not scaled by the batch"
    logging.info("Learning rates, %s: head %.2g, backbone %s.", rule, peak, backbone)


def batch_factor(config: ml_collections.ConfigDict) -> float:
    """What the learning rates are multiplied by because the batch has another size than the recipe was made for.

    SGD: its ratio to `reference_batch_size` (Goyal et al. 2017, arXiv:1706.02677); AdamW: the square root of that (Malladi et al.
    2022, arXiv:2205.10287).
    """
    if not config.reference_batch_size:
        return 1.0
    ratio = config.global_batch_size / config.reference_batch_size
    return ratio if config.optimizer == "sgd" else math.sqrt(ratio)


def schedule(name: str, peak: float, steps: int, warmup: float) -> Callable[[float], float]:
    """Learning rate by step: linear from 0 to `peak` in `warmup` steps, then as `name` says.

    Args:
      name: `cosine` to 0 at `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983), `plateau` or `constant` at `peak`.

    Raises:
      ConfigError: another name.
    """
    if name not in ("cosine", "plateau", "constant"):
        raise ConfigError(f"schedule={name!r}: expected cosine, plateau or constant")

    def rate(step: float) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        if name != "cosine":
            return peak
        progress = (step - warmup) / max(1.0, steps - warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return rate


def _rate_at(depth: float, config: ml_collections.ConfigDict) -> float:
    """Share of the head's learning rate that a backbone variable at `depth` in [0, 1] gets (Howard & Ruder 2018, arXiv:1801.06146)."""
    return config.backbone_lr_factor * config.depth_lr_decay ** (1.0 - depth)


def _is_head(path: str) -> bool:
    return path.startswith(("head_", model_lib.LOGIT))


def _optimizer(
    config: ml_collections.ConfigDict, variables: list[keras.Variable], scale: Mapping[str, float]
) -> keras.optimizers.Optimizer:
    """An optimizer built on `variables`, each learning at `scale` of the rate (1 where it isn't named)."""
    adam = (
        keras.optimizers.AdamW if config.weight_decay else keras.optimizers.Adam
    )  # AdamW refuses to go without
    kinds = {
        "adamw": (adam, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    }
    if config.optimizer not in kinds:
        raise ConfigError(f"optimizer={config.optimizer!r}: expected adamw or sgd")
    kind, options = kinds[config.optimizer]

    class Scaled(kind):  # type: ignore[misc, valid-type]
        """Keras's optimizer, with a factor on the learning rate of each variable."""

        def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
            super().update_step(
                gradient, variable, learning_rate * factors.get(self._var_key(variable), 1.0)
            )

    optimizer: keras.optimizers.Optimizer = Scaled(
        weight_decay=config.weight_decay or None, **options
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if not v.path.endswith("kernel")]
    )
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    factors = {
        optimizer._var_key(variable): scale[variable.path]
        for variable in variables
        if variable.path in scale
    }
    return optimizer
