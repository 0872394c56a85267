"""Define a classifier of three convolutions in the form of `keras.applications`, which trains in
seconds.

Importing this module adds it to `keras.applications` as `TinyNet`; the program then knows it as
`tinynet`. `coarsenet` has a coarser map.
"""

import keras


def TinyNet(include_top=True, weights="imagenet", input_tensor=None):
    x = input_tensor
    for i, filters in enumerate((8, 12, 16), 1):
        x = keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False, name=f"block{i}_conv"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"block{i}_bn")(x)
        x = keras.layers.Activation("relu", name=f"block{i}_relu")(x)
    model = keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="tinynet")
    if weights:
        model.load_weights(weights)
    return model


def CoarseNet(include_top=True, weights="imagenet", input_tensor=None):
    """TinyNet with one convolution more: its map has half as many cells a side."""
    fine = TinyNet(weights=None, input_tensor=input_tensor)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="block4_conv")(fine.output)
    return keras.Model(fine.input, x, name="coarsenet")


def preprocess_input(x):
    return x / 127.5 - 1.0


keras.applications.TinyNet = TinyNet
keras.applications.CoarseNet = CoarseNet
