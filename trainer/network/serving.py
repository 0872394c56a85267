"""What an artifact computes: one network, or several and their mirror images, as one function of the pixels."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.artifact import FREE_METHOD
from trainer.network import cam, saliency
from trainer.network import model as model_lib

Answer = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""uint8 [B, size, size, 1] -> logit [B, 1], map [B, h, w]."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A trained network and its own calibration.

    Attributes:
      model: of `model.build`, in float32.
      temperature: divisor of its logits before they are averaged with those of others; 1 for a network that stands alone.
    """

    model: keras.Model
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Network:
    """One network or an ensemble.

    Attributes:
      architecture: that of every member.
      members: one or more.
      mirrored: the image is also looked at mirrored left to right, and the two answers are averaged (test-time augmentation).
    """

    architecture: model_lib.Architecture
    members: tuple[Member, ...]
    mirrored: bool = False


def serving_function(
    network: Network, temperature: float, method: str = FREE_METHOD
) -> tf.types.experimental.GenericFunction:
    """The function that the artifact serves.

    Args:
      temperature: divisor of the averaged logit before the sigmoid.
      method: what draws the map: `FREE_METHOD`, which comes with the forward pass, or one of `saliency.EXPORTED` at the last layer, for the price of a backward pass.

    Returns:
      `image` uint8 [B, size, size, 1] -> `probability` [B] (calibrated), `logit` [B] (mean over members, each divided by its
      temperature, and over the mirror image), `cam` [B, h, w] (the same mean of their maps), all float32.
    """
    size = network.members[0].model.input_shape[1:]
    asked = [(_answer(member.model, method), member.temperature) for member in network.members]

    @tf.function(input_signature=[tf.TensorSpec((None, *size), tf.uint8, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logit, maps = _mean(asked, image)
        if network.mirrored:
            mirrored_logit, mirrored_maps = _mean(asked, tf.reverse(image, [2]))
            logit = (logit + mirrored_logit) / 2
            maps = (maps + tf.reverse(mirrored_maps, [2])) / 2
        return {"probability": tf.sigmoid(logit / temperature), "logit": logit, "cam": maps}

    return serve


def _answer(model: keras.Model, method: str) -> Answer:
    if method != FREE_METHOD:
        return saliency.in_graph(model, method, model_lib.FEATURES)

    def answer(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model(image, training=False)
        return outputs[model_lib.LOGIT], cam.grad_cam(model, outputs)

    return answer


def _mean(asked: list[tuple[Answer, float]], image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Logit [B] and map [B, h, w], each divided by its member's temperature, averaged over the members."""
    logits, maps = [], []
    for answer, temperature in asked:
        logit, found = answer(image)
        logits.append(tf.squeeze(logit, -1) / temperature)
        maps.append(found / temperature)
    return tf.add_n(logits) / len(logits), tf.add_n(maps) / len(maps)
