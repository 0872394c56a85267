"""Build the function that an artifact serves: one network or several, on flipped images too."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.artifact import ONE_PASS_METHOD
from trainer.model_json.scaling import IDENTITY, Scaling
from trainer.network import cam, saliency
from trainer.network import model as model_lib
from trainer.network.flips import PASSES, Flips, flip

Answer = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Function from images uint8 [B, size, size, 1] to logits [B, 1] and maps [B, h, w]."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A trained network and its own calibration.

    Attributes:
      model: a model of `model.build`, in float32.
      architecture: what `model` was built from.
      temperature: divisor of its logits before they are averaged with those of other members; 1 for
        a network that stands alone.
    """

    model: keras.Model
    architecture: model_lib.Architecture
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Network:
    """One network or an ensemble.

    Attributes:
      members: one or more, which take images of the same size.
      flips: the flipped copies of an image whose outputs are averaged with its own.
    """

    members: tuple[Member, ...]
    flips: Flips = "none"

    @property
    def backbones(self) -> str:
        """Name the backbone; where members differ, all backbones, joined by `+`."""
        return "+".join(dict.fromkeys(member.architecture.backbone for member in self.members))


def serving_function(
    network: Network,
    scaling: Scaling = IDENTITY,
    method: str = ONE_PASS_METHOD,
) -> tf.types.experimental.GenericFunction:
    """Return the function that the artifact serves.

    Args:
      scaling: turns the averaged logit into the probability.
      method: how the map is computed: by `ONE_PASS_METHOD`, which comes with the forward pass, or
        by one of `saliency.EXPORTED` at the last layer, which takes a backward pass.

    Returns:
      A function from `image` uint8 [B, size, size, 1] to float32 `probability` [B], calibrated,
      `logit` [B] and `cam` [B, h, w]. A logit is divided by its member's temperature. Logits and
      maps are means over the members and over the flipped copies.
    """
    size = network.members[0].model.input_shape[1:]
    answers = [
        (_build_answer(member.model, method), member.temperature) for member in network.members
    ]

    @tf.function(input_signature=[tf.TensorSpec((None, *size), tf.uint8, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, maps = [], []
        for axes in PASSES[network.flips]:
            logit, flipped_maps = _average(answers, flip(image, axes))
            logits.append(logit)
            maps.append(flip(flipped_maps, axes))
        logit = tf.add_n(logits) / len(logits)
        probability = tf.sigmoid(logit / scaling.temperature + scaling.intercept)
        return {"probability": probability, "logit": logit, "cam": cam.average(maps)}

    return serve


def _build_answer(model: keras.Model, method: str) -> Answer:
    """Return the function that computes logits and maps of one network."""
    if method != ONE_PASS_METHOD:
        return saliency.build_in_graph(model, method, model_lib.FEATURES)

    def answer(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model(image, training=False)
        return outputs[model_lib.LOGIT], cam.grad_cam(model, outputs)

    return answer


def _average(answers: list[tuple[Answer, float]], image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return logits [B] and maps [B, h, w]: the mean over the members at their temperatures."""
    logits, maps = [], []
    for answer, temperature in answers:
        logit, cells = answer(image)
        logits.append(tf.squeeze(logit, -1) / temperature)
        maps.append(cells / temperature)
    return tf.add_n(logits) / len(logits), cam.average(maps)
