"""The recipe for MURA XR_HUMERUS and data like it."""

import ml_collections

from trainer.configs import default


def get_config() -> ml_collections.ConfigDict:
    return default.get_config()
