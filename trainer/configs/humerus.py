"""The recipe for MURA XR_HUMERUS and similar data: first the head, then the whole network.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=320

    # One network.
    humerus-train --data_dir=data --workdir=runs/humerus
    # Five networks and their ensemble: better, at five times the cost.
    humerus-train --data_dir=data --workdir=runs/humerus5 --folds=5

The measurements behind each choice are in benchmarks/README.md ("What the recipe was chosen by"),
with the results on other radiographs. The recipe has not been measured on MURA, which this project
may not include.

Cost: two CPU cores with AMX fine-tune Xception at some 25 images a second at 128 px. At 320 px a
sixth of that is expected: about an hour for the 1,080 training images of MURA's humerus. No GPU was
available to measure; minutes are expected.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    # A linear head is trained before anything else (linear probing, then fine-tuning: Kumar et al.
    # 2022, arXiv:2202.10054), so that its first gradients don't spoil what pre-training learnt.
    config.head_widths = ()
    config.dropout = 0.3
    config.head_epochs = 3
    config.head_learning_rate = 1e-2
    # The last layers learn at three tenths of the head's rate, the first at a tenth. Without the
    # first third, an image takes three quarters of the time, and noisy simulated radiographs lose
    # 0.03 of AUROC. The real ones at hand are too few to tell.
    config.unfreeze_layers = "all"
    config.epochs = 12
    config.learning_rate = 5e-4
    config.backbone_lr_factor = 0.3
    config.depth_lr_decay = 0.3
    config.weight_decay = 1e-2
    config.label_smoothing = 0.05
    # The averaged weights at the end of the cosine are kept, not the epoch that looked best on some
    # 190 validation images.
    config.ema_decay = 0.99
    config.monitor = "last"
    config.early_stopping_patience = 0
    # Over five folds, bfloat16 ended at the same AUROC within its interval, in two thirds of the
    # processor time.
    config.precision = "auto"
    # An arm has no up or down: it is imaged hanging, raised and lying.
    config.augmentation.vertical_flip = True
    config.augmentation.shift = 0.1
    config.augmentation.zoom = 0.2
    config.augmentation.contrast = 0.3
    config.augmentation.brightness = 0.2
    return config
