"""Define a recipe that trains in seconds with everything that a resumed run must restore: dropout,
averages, moving statistics.
"""

import ml_collections

from tests.support import tiny_net  # noqa: F401 (makes the backbone known)
from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.backbone = "tinynet"
    config.weights = "none"
    config.head_widths = (8,)
    config.dropout = 0.3
    config.unfreeze_layers = "all"
    config.epochs = 4
    config.global_batch_size = config.reference_batch_size = 8
    config.learning_rate = 1e-2
    config.ema_decay = 0.9
    config.checkpoint_every_steps = 2
    config.keep_checkpoints = 3
    config.seed = 3
    config.verify_engines = False
    return config
