"""The recipe for MURA XR_HUMERUS and data like it: the head first, then most of the network, the deeper the faster, averaged.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=320
    humerus-train --data_dir=data --workdir=runs/humerus                  # one network
    humerus-train --data_dir=data --workdir=runs/humerus5 --folds=5       # five, asked together: better, five times the cost

Why each choice, with what was measured for it, stands in benchmarks/README.md ("What the recipe was chosen by"). It has not been
measured on MURA, which this project may not carry; what it reaches on other radiographs stands there too.

Cost: two CPU cores (AVX-512) fine-tuned Xception at 15 images a second at 160 px while they had other work too; at 320 px a quarter of
that is expected, about an hour for the 1,080 images of MURA's humerus that are trained on. One GPU was not at hand: minutes.
"""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    # A linear head, brought into place before anything else moves (linear probing, then fine-tuning: Kumar et al. 2022,
    # arXiv:2202.10054), so that its first gradients don't spoil what pre-training learnt.
    config.head_widths = ()
    config.dropout = 0.3
    config.head_epochs = 3
    config.head_learning_rate = 1e-2
    # The last layers learn at three tenths of the head's rate, the first at a tenth. The very first see edges, at the highest resolution:
    # they stay as they are, which saves a quarter of the time.
    config.unfreeze_layers = "70%"
    config.epochs = 12
    config.learning_rate = 5e-4
    config.backbone_lr_factor = 0.3
    config.depth_lr_decay = 0.3
    config.weight_decay = 1e-2
    config.label_smoothing = 0.05
    # The average of the weights at the end of the cosine is kept, not the epoch that looked best on some 190 images.
    config.ema_decay = 0.99
    config.monitor = "last"
    config.early_stopping_patience = 0
    # An arm has no up or down: it is photographed hanging, raised and lying.
    config.augmentation.vertical_flip = True
    config.augmentation.shift = 0.1
    config.augmentation.zoom = 0.2
    config.augmentation.contrast = 0.3
    config.augmentation.brightness = 0.2
    return config
