"""Build the network as one flat graph: image -> backbone -> features -> pooled -> head -> logit.

In a flat functional graph any layer can be named for a class activation map or a feature map.
Normalisation and grey-to-RGB are layers inside, so that the model takes `uint8 [B, size, size, 1]`.
"""

import contextlib
import dataclasses
import os
import sys
import textwrap

import keras
import numpy as np
from absl import logging

from trainer import artifact, storage
from trainer.errors import ConfigError
from trainer.network import backbones, efficientnet, weights_file
from trainer.network.replica_dropout import ReplicaDropout

NORMALIZATION = "to_backbone_scale"  # not `normalization`: EfficientNet has a layer of that name
FEATURES = "features"
POOLED = "pooled"
LOGIT = "logit"
HEAD = "head_{}"
RANDOM_WEIGHTS = "none"
"""The setting `weights` of a backbone that starts from random weights."""
_POOLING = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


class WeightsUnavailableError(ConfigError):
    """ImageNet's weights were asked for and can't be downloaded."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture of a network, from which the same one can be built again.

    Attributes:
      backbone: a classifier of `keras.applications`, in lower case: `densenet121`, `xception`,
        `resnet50v2`, ...
      pooling: `avg` or `max`, over the last feature map.
      head_widths: units of the Dense ReLU layers between the pooled vector and the logit; () for a
        linear head.
      dropout: rate in [0, 1) on the pooled vector, in training only.
    """

    backbone: str = "densenet121"
    pooling: str = "avg"
    head_widths: tuple[int, ...] = (1024, 1024, 512)
    dropout: float = 0.0


def build(
    architecture: Architecture,
    image_size: int,
    weights: str = RANDOM_WEIGHTS,
    seed: int = 0,
    input_scale: str = backbones.AUTO,
) -> keras.Model:
    """Build the model and load its pre-trained weights.

    Args:
      architecture: what to build.
      image_size: side of the square input, in pixels.
      weights: `imagenet`, `none`, or a path: a Keras weights file of the backbone (`*.h5`), a
        `.keras` file or an artifact directory of an earlier run with the same backbone.
      seed: seed of the random initial weights.
      input_scale: one of `backbones.INPUT_SCALES`, the scale of the grey levels that enter the
        backbone. `auto` takes that of the earlier run, or that of Keras's weights.

    Returns:
      A model from `uint8 [B, image_size, image_size, 1]` to a dict of float32: `features` [B, h, w,
      C], `pooled` [B, C] and `logit` [B, 1].

    Raises:
      ConfigError: unknown backbone or pooling, image too small, weights missing, for another
        backbone or of an unknown scale.
    """
    earlier = _load_earlier_run(weights) if is_earlier_run(weights) else None
    scale = _find_normalization(architecture.backbone, input_scale, weights, earlier)
    keras.utils.set_random_seed(seed)
    image = keras.Input((image_size, image_size, 1), dtype="uint8", name="image")
    rgb = _normalize(image, scale)
    if weights == backbones.IMAGENET and architecture.backbone == backbones.SMALL_NET:
        raise ConfigError("smallnet has no ImageNet weights; set --config.weights=none")
    backbone = _build_backbone(architecture.backbone, rgb, weights)
    if _needs_rescaling(architecture.backbone, weights, input_scale, earlier):
        backbone = efficientnet.rescale(backbone, image)
    last = keras.layers.Activation("linear", dtype="float32", name=FEATURES)
    features = last(backbone.output)
    pooled = _pool(features, architecture.pooling)
    x = pooled
    if architecture.dropout:
        x = ReplicaDropout(architecture.dropout, seed=seed, name="dropout")(x)
    for i, width in enumerate(architecture.head_widths, 1):
        layer = keras.layers.Dense(width, activation="relu", dtype="float32", name=HEAD.format(i))
        x = layer(x)
    logit = keras.layers.Dense(1, dtype="float32", name=LOGIT)(x)
    outputs = {FEATURES: features, POOLED: pooled, LOGIT: logit}
    model = keras.Model(image, outputs, name=f"humerus_{architecture.backbone}")
    if earlier is not None:
        _transfer_weights(earlier, weights, model)
    return model


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers between the normalisation and the feature map, first to last."""
    names = [layer.name for layer in model.layers]
    return model.layers[names.index(NORMALIZATION) + 1 : names.index(FEATURES)]


def head_layers(model: keras.Model) -> list[keras.layers.Dense]:
    """Return the Dense layers from the pooled vector to the logit, first to last."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense) and layer.name.startswith(("head_", LOGIT))
    ]


def is_earlier_run(weights: str) -> bool:
    """Return whether a setting `weights` names a model that was trained by this program."""
    return weights not in (RANDOM_WEIGHTS, backbones.IMAGENET) and not weights.endswith(".h5")


def _normalize(
    image: keras.KerasTensor, scale: tuple[list[float], list[float]]
) -> keras.KerasTensor:
    """Turn grey [0, 255] into three channels, each times its factor plus its offset."""
    factor, offset = scale
    rgb = keras.layers.Concatenate(dtype="uint8", name="grey_to_rgb")([image, image, image])
    return keras.layers.Rescaling(factor, offset, dtype="float32", name=NORMALIZATION)(rgb)


def _read_normalization(model: keras.Model) -> tuple[list[float], list[float]]:
    """Return factor and offset per channel that a model of `build` was made with."""
    config = model.get_layer(NORMALIZATION).get_config()
    return config["scale"], config["offset"]


def _find_normalization(
    backbone: str, input_scale: str, weights: str, earlier: keras.Model | None
) -> tuple[list[float], list[float]]:
    """Return factor and offset per channel: those of the earlier run, else of the backbone.

    Raises:
      ConfigError: the scale is not known, or another one than that of the earlier run was set.
    """
    if earlier is None:
        scale = backbones.choose_scale(input_scale, weights)
        return backbones.find_normalization(backbone, scale)
    found = _read_normalization(earlier)
    if input_scale != backbones.AUTO and not np.allclose(
        found, backbones.find_normalization(backbone, input_scale)
    ):
        raise ConfigError(
            f"input_scale={input_scale!r}: the earlier run weights={weights!r} was trained at"
            " another scale of the input; omit --config.input_scale, and its own is used"
        )
    return found


def _needs_rescaling(
    name: str, weights: str, input_scale: str, earlier: keras.Model | None
) -> bool:
    """Return whether the weights expect a layer of EfficientNet that Keras leaves to us."""
    if not efficientnet.is_first_version(name):
        return False
    if earlier is not None:
        return efficientnet.is_rescaled(earlier)
    return weights.endswith(".h5") and input_scale in (backbones.AUTO, backbones.IMAGENET)


def _build_backbone(name: str, rgb: keras.KerasTensor, weights: str) -> keras.Model:
    """Return the model from the input of `rgb` to the backbone's output, Keras's weights loaded."""
    keras_weights = None if weights == RANDOM_WEIGHTS or is_earlier_run(weights) else weights
    application = backbones.available_backbones()[name]
    try:
        # Keras reports a download on stdout, which belongs to the result.
        with contextlib.ExitStack() as stack, contextlib.redirect_stdout(sys.stderr):
            if keras_weights not in (None, backbones.IMAGENET):
                keras_weights = stack.enter_context(weights_file.copy_to_local(weights))
            return application(include_top=False, weights=keras_weights, input_tensor=rgb)
    except ConfigError:
        raise
    except Exception as error:
        if keras_weights is None:
            raise ConfigError(
                f"backbone={name!r} can't be built for images of {rgb.shape[1]} px ({error});"
                " prepare them at a larger --image_size, or take another backbone"
            ) from error
        if keras_weights == backbones.IMAGENET:
            raise WeightsUnavailableError(
                f"the ImageNet weights of {name} can't be downloaded ({error}); where there is no"
                " network, set --config.weights=PATH to a Keras weights file, an artifact or a"
                " .keras file, or --config.weights=none to start from random weights"
            ) from error
        # Keras names every layer and prints every tensor; its first sentence says what is wrong.
        sentence = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        reason = textwrap.shorten(sentence, 120, placeholder=" ...")
        other = backbones.suggest_another(weights, name)
        raise ConfigError(
            f"weights={weights!r} can't be loaded into {name} without its top ({reason}); are they"
            f" of another backbone? Set --config.backbone{f'={other}' if other else ''}"
        ) from error


def _pool(features: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    if pooling not in _POOLING:
        raise ConfigError(f"pooling={pooling!r}: expected avg or max")
    return _POOLING[pooling](dtype="float32", name=POOLED)(features)


def _transfer_weights(earlier: keras.Model, weights: str, model: keras.Model) -> None:
    """Copy the weights of an earlier run layer by layer, except head layers of another shape.

    `weights` names the earlier run in messages.
    """
    source, target = (
        [layer for layer in backbone_layers(m) if layer.weights] for m in (earlier, model)
    )
    if earlier.name != model.name or [_shapes(x) for x in source] != [_shapes(y) for y in target]:
        raise ConfigError(
            f"weights={weights!r} holds {earlier.name}, and the configuration asks for {model.name}"
        )
    for a, b in zip(source, target, strict=True):
        b.set_weights(a.get_weights())
    heads = {layer.name: layer for layer in head_layers(earlier)}
    for layer in head_layers(model):
        if layer.name in heads and _shapes(heads[layer.name]) == _shapes(layer):
            layer.set_weights(heads[layer.name].get_weights())
        else:
            logging.info(
                "The layer %s has another shape in %s and starts from random weights.",
                layer.name,
                weights,
            )


def _load_earlier_run(weights: str) -> keras.Model:
    """Load the `.keras` file that `weights` names, or that of the artifact there."""
    path = weights if weights.endswith(".keras") else os.path.join(weights, artifact.KERAS_FILE)
    if path != weights and storage.exists(os.path.join(weights, "artifact", artifact.MODEL_JSON)):
        raise ConfigError(f"weights={weights!r} is the folder of a run; name {weights}/artifact")
    is_ensemble = (
        path != weights
        and not storage.exists(path)
        and storage.exists(os.path.join(weights, artifact.MODEL_JSON))
    )
    if is_ensemble:
        raise ConfigError(
            f"weights={weights!r} is an ensemble; start from one network: the `artifact_single`"
            " beside it, or one of its .keras files"
        )
    try:
        with weights_file.copy_to_local(path) as local:
            model: keras.Model = keras.models.load_model(local, compile=False)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"weights={weights!r} is not a model of an earlier run: {error}"
        ) from error
    if NORMALIZATION not in [layer.name for layer in model.layers]:
        raise ConfigError(
            f"weights={weights!r} is not a model of an earlier run (it has no layer"
            f" {NORMALIZATION!r}); name an artifact, or weights of a backbone alone (.h5)"
        )
    return model


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
