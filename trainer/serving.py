"""What an artifact computes: one network, or several and their mirror images, as one function of the pixels."""

import dataclasses

import keras
import tensorflow as tf

from trainer import cam
from trainer import model as model_lib


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


def serving_function(network: Network, temperature: float) -> tf.types.experimental.GenericFunction:
    """The function that the artifact serves.

    Args:
      temperature: divisor of the averaged logit before the sigmoid.

    Returns:
      `image` uint8 [B, size, size, 1] -> `probability` [B] (calibrated), `logit` [B] (mean over members, each divided by its
      temperature, and over the mirror image), `cam` [B, h, w] (the same mean of their maps), all float32.
    """
    size = network.members[0].model.input_shape[1:]

    @tf.function(input_signature=[tf.TensorSpec((None, *size), tf.uint8, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logit, maps = _mean(network.members, image)
        if network.mirrored:
            mirrored_logit, mirrored_maps = _mean(network.members, tf.reverse(image, [2]))
            logit = (logit + mirrored_logit) / 2
            maps = (maps + tf.reverse(mirrored_maps, [2])) / 2
        return {"probability": tf.sigmoid(logit / temperature), "logit": logit, "cam": maps}

    return serve


def _mean(members: tuple[Member, ...], image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Logit [B] and map [B, h, w], averaged over the members."""
    logits, maps = [], []
    for member in members:
        outputs = member.model(image, training=False)
        logits.append(tf.squeeze(outputs[model_lib.LOGIT], -1) / member.temperature)
        maps.append(cam.grad_cam(member.model, outputs) / member.temperature)
    return tf.add_n(logits) / len(members), tf.add_n(maps) / len(members)
