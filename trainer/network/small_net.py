"""A small convolutional network that learns from random weights in minutes on two CPU cores.

The demo trains it where ImageNet's weights can't be downloaded. It has the signature of a backbone
of `keras.applications`.
"""

import keras
import numpy as np

WIDTHS = (16, 32, 48, 64, 96)
POOLED_STAGES = 3


def preprocess_input(image: np.ndarray) -> np.ndarray:
    """Scale RGB from [0, 255] to [-1, 3]; radiographs are dark, so that most values are near 0."""
    return image / 64.0 - 1.0


def SmallNet(
    include_top: bool = False,
    weights: str | None = None,
    input_tensor: keras.KerasTensor | None = None,
) -> keras.Model:
    """Build five stages of two 3x3 convolutions, each with BatchNormalization and ReLU.

    The side of the feature map is a sixteenth of the input's.

    Args:
      include_top: must be False, since there is no classifier.
      weights: None, or the path of a weights file.
      input_tensor: [B, height, width, 3].
    """
    x = input_tensor
    for stage, width in enumerate(WIDTHS, 1):
        for i in (1, 2):
            strides = 2 if stage == i == 1 else 1
            x = keras.layers.Conv2D(
                width, 3, strides, "same", use_bias=False, name=f"conv{stage}_{i}_conv"
            )(x)
            x = keras.layers.BatchNormalization(name=f"conv{stage}_{i}_bn")(x)
            x = keras.layers.ReLU(name=f"conv{stage}_{i}_relu")(x)
        if stage <= POOLED_STAGES:
            x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
    model = keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="small_net")
    if weights:
        model.load_weights(weights)
    return model
