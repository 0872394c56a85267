"""The demo of `make train-local`: simulated radiographs, and minutes on two CPU cores rather than the best result.

With a network, DenseNet121 is fine-tuned from ImageNet weights. Without one, a MobileNet learns from random weights, loudly:
DenseNet121 needs an hour for that on two cores.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.fallback_backbone = "mobilenet"
    config.head_widths = ()
    config.epochs = 12
    config.learning_rate = 1.5e-3
    config.ema_decay = 0.98
    config.augmentation.rotation = 10.0
    config.augmentation.contrast = 0.1
    config.augmentation.vertical_flip = True
    return config
