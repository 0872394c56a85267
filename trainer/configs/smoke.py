"""The demo of `make train-local`: simulated radiographs, in minutes on two CPU cores.

With access to the network, DenseNet121 is fine-tuned from ImageNet's weights. Without it, a warning
says so, and a network of ten convolutions learns from random weights: DenseNet121 would be too slow
for that on two cores.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.fallback_backbone = "smallnet"
    config.pooling = "max"
    config.head_widths = ()
    config.epochs = 20
    # A step of this network takes 40 ms, of which a twentieth is the call from Python.
    config.steps_per_execution = 8
    config.learning_rate = 2e-3
    config.weight_decay = 1e-3
    config.ema_decay = 0.98
    config.augmentation.vertical_flip = True
    config.augmentation.rotation = 10.0
    config.augmentation.shift = 0.0
    config.augmentation.zoom = 0.0
    # A demo scores each image once.
    config.test_time_flips = "none"
    return config
