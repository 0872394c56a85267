"""List the flipped copies of an image that are scored beside it (test-time augmentation)."""

from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf

Flips = Literal["none", "horizontal", "both"]
"""The copies of an image that are scored: itself alone; also its mirror image; also both of these
upside down."""

PASSES: Mapping[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (2,)),
    "both": ((), (2,), (1,), (1, 2)),
}
"""Axes of [B, height, width, ...] that are reversed before each pass through the network."""


def flip(tensor: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Reverse images or maps [B, height, width, ...], of any dtype, along `axes`."""
    for axis in axes:  # one at a time: OpenVINO reverses no two at once
        tensor = tf.reverse(tensor, [axis])
    return tensor


def read(architecture: Mapping[str, Any]) -> Flips:
    """Read from `architecture` of `model.json` how images are scored.

    Artifacts of earlier versions have `mirrored` instead of `flips`.
    """
    return architecture.get("flips", "horizontal" if architecture.get("mirrored") else "none")
