"""The recipe for MURA XR_HUMERUS and data like it: the head first, then the end of the backbone, slower, under an average.

Chosen from what the field uses, not yet by cross-validation: AdamW with warm-up and cosine, a rate for the backbone of half the
head's, smoothed labels, and an exponential average of the weights, because some 190 validation images can't tell good epochs from
lucky ones.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.head_epochs = 2
    config.epochs = 20
    config.learning_rate = 2e-4
    config.backbone_lr_factor = 0.5
    config.weight_decay = 1e-2
    config.dropout = 0.3
    config.label_smoothing = 0.05
    config.ema_decay = 0.99
    config.augmentation.vertical_flip = True
    config.monitor_smoothing = 3
    config.early_stopping_patience = 8
    return config
