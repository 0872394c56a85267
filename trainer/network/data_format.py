"""The order of the axes inside the backbone: channels last, or first for GPUs that train faster so.

Keras builds its backbones channels last (DenseNet refuses anything else), so what it built is copied layer by layer. Weights have the
same shapes in either order, and what lies outside the backbone, its feature map included, sees `[B, height, width, channels]`.
"""

from typing import Any

import keras

from trainer.errors import ConfigError
from trainer.network import model as model_lib

CHANNELS_LAST, CHANNELS_FIRST = "channels_last", "channels_first"
_AXIS = {CHANNELS_LAST: -1, CHANNELS_FIRST: 1}
_SETTLED_BY_FORMAT_AND_AXIS = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.Conv2D,
    keras.layers.Cropping2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dropout,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.SeparableConv2D,
    keras.layers.ZeroPadding2D,
)


def convert(model: keras.Model, data_format: str) -> keras.Model:
    """The same network with the same weights, its backbone in another order of axes; the model itself where it is in that order.

    Args:
      model: of `model.build`, in either order.
      data_format: `CHANNELS_LAST` or `CHANNELS_FIRST`.

    Raises:
      ConfigError: the backbone has a layer that isn't known to work channels first.
    """
    is_first = any(isinstance(layer, keras.layers.Permute) for layer in model.layers)
    if is_first == (data_format == CHANNELS_FIRST):
        return model
    backbone = {layer.name for layer in model_lib.backbone_layers(model)}

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        return layer.__class__.from_config(
            _turned(layer, settings, data_format) if layer.name in backbone else settings
        )

    def called(layer: keras.layers.Layer, tensor: Any, **options: Any) -> Any:
        if isinstance(layer, keras.layers.Permute):
            return tensor
        if layer.name == model_lib.FEATURES and data_format == CHANNELS_FIRST:
            tensor = keras.layers.Permute((2, 3, 1))(tensor)
        result = layer(tensor, **options)
        if layer.name == model_lib.NORMALIZATION and data_format == CHANNELS_FIRST:
            result = keras.layers.Permute((3, 1, 2))(result)
        return result

    converted = keras.models.clone_model(model, clone_function=copied, call_function=called)
    converted.set_weights(model.get_weights())
    return converted


def _turned(
    layer: keras.layers.Layer, settings: dict[str, Any], data_format: str
) -> dict[str, Any]:
    """The settings of a backbone's layer for another order of axes."""
    if not isinstance(layer, _SETTLED_BY_FORMAT_AND_AXIS):
        raise ConfigError(
            f"data_format={data_format}: the backbone has a layer of kind {type(layer).__name__}, which isn't known to work so;"
            f" take {CHANNELS_LAST}, or another backbone"
        )
    turned = {"data_format": data_format, "axis": _AXIS[data_format]}
    return settings | {key: value for key, value in turned.items() if key in settings}
