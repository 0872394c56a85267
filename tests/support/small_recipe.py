"""A recipe that trains in seconds and yet uses all that a resumed run must carry on: dropout, averages, two phases' state."""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.backbone = "mobilenet"
    config.weights = "none"
    config.head_widths = (8,)
    config.dropout = 0.3
    config.unfreeze_layers = "9"
    config.epochs = 3
    config.global_batch_size = 8
    config.learning_rate = 1e-3
    config.ema_decay = 0.9
    config.checkpoint_every_steps = 2
    config.keep_checkpoints = 3
    return config
