"""The demo of `make train-local`: simulated radiographs, small enough for two CPU cores and a few minutes."""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.allow_random_weights = True
    config.head_widths = ()
    config.unfreeze_layers = "all"
    config.epochs = 12
    config.global_batch_size = 32
    config.learning_rate = 1e-3
    config.ema_decay = 0.98
    config.augmentation.rotation = 15.0
    return config
