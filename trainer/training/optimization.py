"""Decide which variables learn, how fast, and when: phases, optimizers and schedules."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import ml_collections
from absl import logging

from trainer.network import model as model_lib
from trainer.network import trainable_layers
from trainer.training.training_step import Phase


def build_phases(
    model: keras.Model,
    settings: ml_collections.ConfigDict,
    steps_per_epoch: int,
    pretrained: bool,
) -> list[Phase]:
    """Return the phases: the first trains the head on the frozen backbone, the second fine-tunes.

    A backbone that starts from random weights (not `pretrained`) is trained completely and from the
    first step: frozen, it would only pass on noise. Call this under the strategy's scope, since it
    creates the optimizers' variables.
    """
    unfreeze = settings.unfreeze_layers if pretrained else "all"
    trainable_layers.freeze(model, unfreeze, train_batch_norm=not pretrained)
    depths, factor = trainable_layers.compute_depths(model), compute_batch_factor(settings)
    clip_norm, micro_batches = settings.clip_norm, settings.gradient_accumulation_steps
    phases = []
    if settings.head_epochs and pretrained:
        head = [
            variable
            for layer in model_lib.head_layers(model)
            for variable in layer.trainable_variables
        ]
        steps = settings.head_epochs * steps_per_epoch
        rate = schedule("cosine", settings.head_learning_rate * factor, steps, 0)
        optimizer = _build_optimizer(settings, head, {})
        phases.append(Phase(settings.head_epochs, head, optimizer, rate, clip_norm, micro_batches))
    if settings.epochs:
        trained = list(model.trainable_variables)
        scale = {
            path: _scale_at(depth, settings)
            for path, depth in depths.items()
            if not path.startswith(("head_", model_lib.LOGIT))
        }
        steps, warmup = settings.epochs * steps_per_epoch, settings.warmup_epochs * steps_per_epoch
        rate = schedule(settings.schedule, settings.learning_rate * factor, steps, warmup)
        optimizer = _build_optimizer(settings, trained, scale)
        phases.append(Phase(settings.epochs, trained, optimizer, rate, clip_norm, micro_batches))
        _log_rates(settings, list(scale.values()))
    return phases


def compute_batch_factor(settings: ml_collections.ConfigDict) -> float:
    """Return the factor on the learning rates for a batch of another size than the recipe's.

    For SGD it is the ratio of `global_batch_size` to `reference_batch_size` (Goyal et al. 2017,
    arXiv:1706.02677); for AdamW the square root of that (Malladi et al. 2022, arXiv:2205.10287).
    """
    if not settings.reference_batch_size:
        return 1.0
    ratio = settings.global_batch_size / settings.reference_batch_size
    return ratio if settings.optimizer == "sgd" else math.sqrt(ratio)


def schedule(name: str, peak: float, steps: int, warmup: float) -> Callable[[float], float]:
    """Return the learning rate as a function of the step; it first rises linearly to `peak`.

    Args:
      name: what follows: `cosine` to 0 at `steps` (Loshchilov & Hutter 2017, arXiv:1608.03983);
        `plateau` or `constant` at `peak`.
      warmup: number of steps of the linear part.
    """

    def compute_rate(step: float) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        if name != "cosine":
            return peak
        progress = (step - warmup) / max(1.0, steps - warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return compute_rate


def _log_rates(settings: ml_collections.ConfigDict, scales: Sequence[float]) -> None:
    """Log the learning rates of fine-tuning and how they were scaled.

    `scales` holds the factor of each backbone variable on the head's rate.
    """
    peak = settings.learning_rate * compute_batch_factor(settings)
    backbone = f"{peak * min(scales):.2g} to {peak * max(scales):.2g}" if scales else "frozen"
    kind = "in proportion to" if settings.optimizer == "sgd" else "by the square root of"
    sizes = f"{settings.global_batch_size} / {settings.reference_batch_size}"
    rule = f"scaled {kind} the batch, {sizes}"
    if not settings.reference_batch_size:
        rule = "not scaled by the batch"
    logging.info("Learning rates, %s: head %.2g, backbone %s.", rule, peak, backbone)


def _scale_at(depth: float, settings: ml_collections.ConfigDict) -> float:
    """Return the factor on the head's learning rate for a backbone variable at `depth` in [0, 1].

    It decays from the end of the backbone to its beginning (Howard & Ruder 2018, arXiv:1801.06146).
    """
    return settings.backbone_lr_factor * settings.depth_lr_decay ** (1.0 - depth)


def _build_optimizer(
    settings: ml_collections.ConfigDict, variables: list[keras.Variable], scale: Mapping[str, float]
) -> keras.optimizers.Optimizer:
    """Return an optimizer built on `variables`; `scale` holds factors on the rate of some."""
    if settings.optimizer == "sgd":
        kind, options = keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}
    else:  # AdamW refuses a weight decay of 0
        kind, options = (
            keras.optimizers.AdamW if settings.weight_decay else keras.optimizers.Adam,
            {},
        )

    class Scaled(kind):  # type: ignore[misc, valid-type]
        """Keras's optimizer, with a factor on the learning rate of each variable."""

        def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
            super().update_step(
                gradient, variable, learning_rate * factors.get(self._var_key(variable), 1.0)
            )

    optimizer: keras.optimizers.Optimizer = Scaled(
        weight_decay=settings.weight_decay or None, **options
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if not v.path.endswith("kernel")]
    )
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    factors = {
        optimizer._var_key(variable): scale[variable.path]
        for variable in variables
        if variable.path in scale
    }
    return optimizer
