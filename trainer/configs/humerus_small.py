"""The humerus recipe within an hour on two CPU cores: smaller images and fewer epochs.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=256
    humerus-train --data_dir=data --workdir=runs/small --config=humerus_small

Half an hour for MURA's humerus is expected from 25 images a second at 128 px on two cores with AMX;
this was not measured on it.
"""

import ml_collections

from trainer.configs import humerus


def get_config() -> ml_collections.ConfigDict:
    config = humerus.get_config()
    config.epochs = 8
    return config
