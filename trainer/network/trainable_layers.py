"""Choose which layers of a network learn, and say how deep each of their variables lies."""

from collections.abc import Sequence

import keras

from trainer.errors import ConfigError
from trainer.network import model as model_lib

_BATCH_NORM_MOMENTUM = 0.9
"""Momentum of statistics that are learnt from the start. With Keras's 0.99 the initial ones would
still have an influence after some hundred steps."""


def freeze(model: keras.Model, unfreeze_layers: str, train_batch_norm: bool) -> None:
    """Make the last backbone layers and the head trainable, and nothing else.

    Args:
      model: a model of `model.build`; changed in place.
      unfreeze_layers: `all`; a count of backbone layers from the end, `0` for none; a share of them
        from the end, such as `70%`; or the name of the first one to train.
      train_batch_norm: True when the backbone starts from random weights. Otherwise
        BatchNormalization layers stay frozen, and with them in inference mode: the statistics of a
        small batch would spoil what pre-training measured on millions of images. In training each
        replica normalises by its own share of the batch, since Keras's synchronised statistics take
        minutes to trace; the loop gives all replicas the mean of their moving statistics.

    Raises:
      ConfigError: `unfreeze_layers` is none of these.
    """
    layers = model_lib.backbone_layers(model)
    first = _find_first_unfrozen([layer.name for layer in layers], unfreeze_layers)
    for i, layer in enumerate(layers):
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = i >= first and (train_batch_norm or not is_batch_norm)
        if is_batch_norm and layer.trainable:
            layer.momentum = _BATCH_NORM_MOMENTUM


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """Return moving means and variances of the BatchNormalization layers that are not frozen."""
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    return [variable for layer in layers for variable in layer.non_trainable_variables]


def compute_depths(model: keras.Model) -> dict[str, float]:
    """Return the depth of every trainable variable, by its path.

    It rises from 0 at the image to 1 at the end of the backbone; in the head it is 1.
    """
    layers = model_lib.backbone_layers(model)
    depth = {variable.path: 1.0 for variable in model.trainable_variables}
    depth.update(
        {
            v.path: i / len(layers)
            for i, layer in enumerate(layers)
            for v in layer.trainable_variables
        }
    )
    return depth


def _find_first_unfrozen(names: Sequence[str], unfreeze_layers: str) -> int:
    """Return the index of the first layer to train."""
    if unfreeze_layers == "all":
        return 0
    if unfreeze_layers.isdecimal():
        return max(0, len(names) - int(unfreeze_layers))
    share = unfreeze_layers.removesuffix("%")
    if share != unfreeze_layers and share.isdecimal() and int(share) <= 100:
        return len(names) - round(len(names) * int(share) / 100)
    if unfreeze_layers in names:
        return names.index(unfreeze_layers)
    raise ConfigError(
        f"unfreeze_layers={unfreeze_layers!r}: expected `all`, a number, a share such as 70%,"
        f" or a layer of the backbone such as {names[len(names) // 2]!r}"
    )
