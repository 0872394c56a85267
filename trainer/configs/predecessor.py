"""The baseline: the three notebooks that this project replaces.

They train DenseNet121 with max pooling, by SGD with Nesterov momentum.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.pooling = "max"
    config.optimizer = "sgd"
    config.learning_rate = 1e-3
    config.weight_decay = 0.0
    config.schedule = "plateau"
    config.warmup_epochs = 0.0
    config.class_weights = False
    config.monitor = "loss"
    config.epochs = 50
    config.early_stopping_patience = 5
    config.test_time_flips = "none"
    return config
