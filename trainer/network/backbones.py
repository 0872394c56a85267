"""List the backbones by name, and the input range that their weights expect."""

import inspect
import pathlib
import sys
from collections.abc import Callable

import keras
import numpy as np

from trainer.errors import ConfigError
from trainer.network.small_net import SmallNet

AUTO = "auto"
"""The setting `input_scale` that takes the scale from the weights, where they tell it."""
IMAGENET = "imagenet"
SMALL_NET = "smallnet"
_CHANNEL_MEANS = np.array([103.939, 116.779, 123.68])
"""ImageNet's means of blue, green and red, in grey levels."""
_SCALES = {
    # `ImageDataGenerator(rescale=1 / 255, preprocessing_function=preprocess_input)` of the scripts
    # in github.com/BMEII-AI/RadImageNet subtracts the means and then divides.
    "radimagenet": (1 / 255, -_CHANNEL_MEANS / 255),
    "-1..1": (1 / 127.5, np.full(3, -1.0)),
    "0..1": (1 / 255, np.zeros(3)),
    "0..255": (1.0, np.zeros(3)),
}
INPUT_SCALES = (AUTO, IMAGENET, *_SCALES)
"""Values of the setting `input_scale`."""


def available_backbones() -> dict[str, Callable[..., keras.Model]]:
    """Return the classifiers of `keras.applications` and our `smallnet`, by name in lower case."""
    functions = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    classifiers = {
        name.lower(): f
        for name, f in functions.items()
        if "include_top" in inspect.signature(f).parameters
    }
    return {**classifiers, SMALL_NET: SmallNet}


def check_backbone(backbone: str) -> None:
    """Check that there is a backbone of this name.

    Raises:
      ConfigError: there is none; the message lists all.
    """
    if backbone not in available_backbones():
        raise ConfigError(
            f"backbone={backbone!r} is not among the known backbones:"
            f" {', '.join(available_backbones())}"
        )


def suggest_another(weights: str, other_than: str) -> str | None:
    """Return another backbone that the name of a weights file contains; None if there is none."""
    file = pathlib.PurePosixPath(weights).name.lower().replace("_", "")
    found = [name for name in available_backbones() if name in file]
    best = max(found, key=len, default=other_than)
    return None if best == other_than else best


def find_normalization(
    backbone: str, input_scale: str = IMAGENET
) -> tuple[list[float], list[float]]:
    """Return factor and offset per channel that turn grey levels into the input of a backbone.

    `imagenet` is the scale of Keras's own `preprocess_input`. It is affine in a grey image, so that
    black and white determine it.
    """
    if input_scale in _SCALES:
        factor, offset = _SCALES[input_scale]
        return [factor] * 3, offset.tolist()
    check_backbone(backbone)
    function = available_backbones()[backbone]
    preprocess = sys.modules[function.__module__].preprocess_input
    black, white = (
        np.asarray(preprocess(np.full((1, 1, 1, 3), value, "float32"))).ravel()
        for value in (0.0, 255.0)
    )
    return ((white - black) / 255.0).tolist(), black.tolist()


def choose_scale(input_scale: str, weights: str) -> str:
    """Return the scale of weights that no run of this program made.

    Raises:
      ConfigError: the setting leaves it open, and the name of the file says that it is none of
        Keras's. Used at the wrong scale, such weights would be worth little, and nothing would say
        so.
    """
    if input_scale != AUTO:
        return input_scale
    if "radimagenet" in weights.lower():
        raise ConfigError(
            f"weights={weights!r}: RadImageNet's weights expect another scale of the input than"
            " Keras's; set --config.input_scale, such as radimagenet, or imagenet if they were"
            " trained at Keras's scale"
        )
    return IMAGENET
