"""Draw what single channels of a layer respond to: maps of an image, and filter patterns."""

import math

import cv2
import keras
import numpy as np
import tensorflow as tf

from trainer.errors import ConfigError
from trainer.network import model as model_lib
from trainer.network import saliency

CHANNELS = 64
"""Most channels that are shown; of more, those that vary most."""
PATTERNS = 9
_STEPS, _STEP = 30, 12.0
_TILE = 96


def draw_grid(model: keras.Model, image: np.ndarray, layer: str) -> np.ndarray:
    """Draw the maps of a layer side by side, with the numbers of their channels, all on one scale.

    Args:
      image: uint8 [size, size, 1].

    Returns:
      uint8 [height, width, 3] in BGR; the darkest colour is 0 and below, yellow the 99.8th
      percentile of the layer.
    """
    features = saliency.features(model, image[None], layer)[0]
    chosen = np.sort(np.argsort(-features.std(axis=(0, 1)), kind="stable")[:CHANNELS])
    top = np.quantile(features, 0.998)
    level = np.clip(features / top * 255 if top > 0 else np.zeros_like(features), 0, 255).astype(
        np.uint8
    )
    tiles = [
        cv2.applyColorMap(np.ascontiguousarray(level[..., channel]), cv2.COLORMAP_VIRIDIS)
        for channel in chosen
    ]
    return _tile(tiles, [str(channel) for channel in chosen])


def draw_patterns(model: keras.Model, layer: str, seed: int = 0) -> np.ndarray:
    """Draw, for channels spread over a layer, the grey picture that excites each of them most.

    It is found by gradient ascent from noise, with steps of equal length and a slight blur (Erhan
    et al. 2009, "Visualizing higher-layer features of a deep network").

    Returns:
      uint8 [height, width, 3] in BGR: the pictures side by side, with the numbers of their
      channels.

    Raises:
      ConfigError: there is no such layer after the normalisation.
    """
    ends = saliency.layers(model)
    order = list(ends)
    if layer not in order or order.index(layer) <= order.index(model_lib.NORMALIZATION):
        raise ConfigError(
            f"filter patterns need a layer after {model_lib.NORMALIZATION!r}, not {layer!r};"
            " see --list_layers"
        )
    channels = np.unique(np.linspace(0, ends[layer][2] - 1, PATTERNS).astype(int))
    pictures = _ascend(model, layer, channels, seed)
    tiles = [
        cv2.cvtColor(one[..., 0].round().astype(np.uint8), cv2.COLOR_GRAY2BGR) for one in pictures
    ]
    side = max(_TILE, min(model.input_shape[1], 192))
    return _tile(tiles, [str(channel) for channel in channels], side)


def _ascend(model: keras.Model, layer: str, channels: np.ndarray, seed: int) -> np.ndarray:
    """Return the pictures that excite the means of `channels`, float32 [N, size, size, 1]."""
    normalize = model.get_layer(model_lib.NORMALIZATION)
    behind = keras.Model(normalize.output, model.get_layer(layer).output)
    size = model.input_shape[1]
    noise = np.random.default_rng(seed).normal(110, 12, (len(channels), size, size, 1))

    @tf.function
    def ascend(picture: tf.Tensor) -> tf.Tensor:
        outputs = behind(normalize(tf.repeat(picture, 3, axis=-1)), training=False)
        means = tf.gather(tf.reduce_mean(outputs, axis=(1, 2)), channels, axis=1, batch_dims=0)
        (gradient,) = tf.gradients(tf.linalg.trace(means), picture)
        length = tf.math.reduce_std(gradient, axis=(1, 2, 3), keepdims=True)
        return tf.clip_by_value(
            picture + _STEP * tf.math.divide_no_nan(gradient, length), 0.0, 255.0
        )

    picture = noise.astype(np.float32)
    for _ in range(_STEPS):
        picture = ascend(tf.constant(picture)).numpy()
        picture = np.stack(
            [cv2.GaussianBlur(one[..., 0], (0, 0), 0.6)[..., None] for one in picture]
        )
    return picture


def _tile(tiles: list[np.ndarray], names: list[str], side: int = _TILE) -> np.ndarray:
    """Arrange squares of `side` pixels with their names in about as many columns as rows."""
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = np.full(
        (math.ceil(len(tiles) / columns) * (side + 4), columns * (side + 4), 3), 24, np.uint8
    )
    for i, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        top, left = i // columns * (side + 4) + 2, i % columns * (side + 4) + 2
        drawn = cv2.resize(
            tile,
            (side, side),
            interpolation=cv2.INTER_NEAREST if tile.shape[0] < side else cv2.INTER_AREA,
        )
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                drawn,
                name,
                (4, side - 5),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.38,
                colour,
                thickness,
                cv2.LINE_AA,
            )
        sheet[top : top + side, left : left + side] = drawn
    return sheet
