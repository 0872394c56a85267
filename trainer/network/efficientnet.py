"""Add to EfficientNet B0 to B7 the layer that Keras adds only where it loads ImageNet's weights.

The layer divides the normalised image by the square roots of ImageNet's standard deviations
(keras.applications.efficientnet). A file of the same weights and an earlier run need it too.
"""

import math
from typing import Any

import keras

_DEVIATIONS = (0.229, 0.224, 0.225)
"""ImageNet's standard deviations of red, green and blue, of levels from 0 to 1."""


def is_first_version(backbone: str) -> bool:
    """Return whether a backbone is one of B0 to B7; version 2 has no such layer."""
    return backbone.startswith("efficientnetb")


def is_rescaled(model: keras.Model) -> bool:
    """Return whether a model has the layer: a rescaling behind EfficientNet's normalisation."""
    kinds = [type(layer) for layer in model.layers]
    return (
        keras.layers.Normalization in kinds
        and keras.layers.Rescaling in kinds[kinds.index(keras.layers.Normalization) :]
    )


def rescale(backbone: keras.Model, image: keras.KerasTensor) -> keras.Model:
    """Return a copy of the backbone, from the input `image` to its output, with the layer."""
    rescaling = keras.layers.Rescaling([1 / math.sqrt(deviation) for deviation in _DEVIATIONS])

    def call(layer: keras.layers.Layer, *arguments: Any, **named: Any) -> Any:
        made = layer(*arguments, **named)
        return rescaling(made) if isinstance(layer, keras.layers.Normalization) else made

    copy = keras.models.clone_model(backbone, input_tensors=[image], call_function=call)
    copy.set_weights(backbone.get_weights())
    return copy
