"""Map where a network looked, by methods of one form: `method(model, images, layer) -> maps`.

    model   a model of `model.build`, or any Keras functional model whose outputs are a mapping with
            `logit` [B, 1]
    images  [B, height, width, 1], of the model's own dtype
    layer   name of a layer with an output [B, h, w, C]; `model.FEATURES` is the last one
    maps    float32 [B, h, w] over the whole image, larger where the evidence is positive

`cam.grad_cam` computes the first of them at the last layer, without a backward pass.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import ConfigError
from trainer.network import cam_formulas
from trainer.network import model as model_lib

Method = Callable[[keras.Model, np.ndarray, str], np.ndarray]

SCORE_CAM_CHANNELS = 64
"""Score-CAM runs the network once for each of this many channels, those that vary most."""
OCCLUSION_CELLS = 14
"""Cells of the occlusion map along each side; a patch covers two by two cells."""
_SEVERAL_LAYERS = ("fused_layer_cam", "refined_cam")
FUSED_STAGES = 4
"""Number of resolutions that the fused map combines; DenseNet has four dense blocks."""
_BATCH = 32


def layers(model: keras.Model) -> dict[str, tuple[int, int, int]]:
    """Return height, width and channels of every layer that has a map, by name, first to last."""
    shapes = {
        layer.name: layer.output.shape
        for layer in model.layers
        if isinstance(layer.output, keras.KerasTensor)
    }
    return {name: shape[1:] for name, shape in shapes.items() if len(shape) == 4}


def block_ends(model: keras.Model) -> list[str]:
    """Return the last layer at each of the last `FUSED_STAGES` resolutions, first to last.

    Layers before the normalisation don't count.
    """
    ends: dict[tuple[int, int], str] = {}
    for name, (height, width, _) in layers(model).items():
        if name == model_lib.NORMALIZATION:
            ends.clear()
        elif height > 1 and not isinstance(
            model.get_layer(name), (keras.layers.InputLayer, keras.layers.ZeroPadding2D)
        ):
            ends[height, width] = name
    return list(ends.values())[-FUSED_STAGES:]


def score_cam(model: keras.Model, images: np.ndarray, layer: str) -> np.ndarray:
    """Compute Score-CAM: channels weighted by the logit of the image that each of them masks.

    Wang et al. 2020, arXiv:1910.01279.
    """
    return np.stack(
        [
            _compute_score_cam(model, *pair)
            for pair in zip(images, features(model, images, layer), strict=True)
        ]
    )


def occlusion(model: keras.Model, images: np.ndarray, layer: str = "") -> np.ndarray:
    """Compute by how much the logit falls when a patch is painted in the image's mean grey; signed.

    A cell holds the mean over the patches that cover it (Zeiler & Fergus 2014, arXiv:1311.2901). It
    needs neither gradients nor features, and `layer` is ignored.
    """
    height, width = images.shape[1:3]
    cells = min(OCCLUSION_CELLS, height, width)
    rows, columns = (
        np.linspace(0, side, cells + 1).round().astype(int) for side in (height, width)
    )
    whole = logit(model, images)
    fall, covered = (
        np.zeros((len(images), cells, cells), np.float32),
        np.zeros((cells, cells), np.float32),
    )
    grey = _as_pixels(images.mean(axis=(1, 2, 3), keepdims=True), images.dtype)
    for i in range(cells - 1):
        for j in range(cells - 1):
            painted = images.copy()
            painted[:, rows[i] : rows[i + 2], columns[j] : columns[j + 2]] = grey
            fall[:, i : i + 2, j : j + 2] += (whole - logit(model, painted))[:, None, None]
            covered[i : i + 2, j : j + 2] += 1
    return fall / covered


EXPORTED = ("hires_cam", "grad_cam_pp", "layer_cam", "fused_layer_cam", "refined_cam")
"""Methods that a SavedModel can hold beside `grad_cam`; each takes one backward pass."""


def parse_exported_methods(names: str) -> tuple[str, ...]:
    """Return the methods in a comma-separated list.

    Raises:
      ConfigError: one of them can't be part of a SavedModel.
    """
    methods = tuple(name.strip() for name in names.split(",") if name.strip())
    for method in methods:
        if method not in EXPORTED:
            raise ConfigError(
                f"cam_methods={method}: expected one or several of {', '.join(EXPORTED)}"
            )
    return methods


def build_in_graph(
    model: keras.Model, method: str, layer: str
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return the function that computes logits [B, 1] and maps float32 [B, h, w] by gradients.

    It must be called inside a `tf.function`.
    """
    ends = _find_ends_up_to(model, layer) if method in _SEVERAL_LAYERS else [layer]
    _check_layer(list(layers(model)), layer)
    tapped = keras.Model(
        model.input, [*(model.get_layer(end).output for end in ends), _logit_of(model.output)]
    )

    def compute(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        *activations, logit = tapped(images, training=False)
        if method == "refined_cam":  # no gradient of the earlier layer, which costs a pass
            finer, activations = activations[-2:-1], activations[-1:]
        # Symbolic gradients: a tape loses track of layers that come before any trainable variable.
        gradients = tf.gradients(
            logit, activations, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        pairs = [
            (tf.cast(a, tf.float32), tf.cast(g, tf.float32))
            for a, g in zip(activations, gradients, strict=True)
        ]
        if method == "fused_layer_cam":
            return logit, cam_formulas.fuse([cam_formulas.layer_cam(*pair) for pair in pairs])
        if method == "refined_cam":
            coarse = cam_formulas.grad_cam(*pairs[0])
            return logit, cam_formulas.refine(
                coarse, tf.cast(finer[0], tf.float32)
            ) if finer else coarse
        return logit, cam_formulas.FORMULAS[method](*pairs[0])

    return compute


def features(model: keras.Model, images: np.ndarray, layer: str) -> np.ndarray:
    """Return the output of a layer, float32 [B, h, w, C]."""
    _check_layer(list(layers(model)), layer)
    tapped = keras.Model(model.input, model.get_layer(layer).output)
    return _run_in_batches(
        _trace(lambda some: (tf.cast(tapped(some, training=False), tf.float32),), model), images
    )[0]


def logit(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the logit of each image, float32 [B]."""
    return _run_in_batches(_compile_forward(model), images)[0][:, 0]


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize maps float32 [B, h, w] to [B, height, width], bilinearly."""
    return tf.image.resize(maps[..., None], (height, width)).numpy()[..., 0]


def _compute_score_cam(
    model: keras.Model, image: np.ndarray, activations: np.ndarray
) -> np.ndarray:
    kept = np.argsort(-activations.std(axis=(0, 1)), kind="stable")[:SCORE_CAM_CHANNELS]
    channels = np.moveaxis(activations[..., kept], -1, 0)
    masks = resize(channels, *image.shape[:2])
    low, high = masks.min(axis=(1, 2), keepdims=True), masks.max(axis=(1, 2), keepdims=True)
    masks = np.divide(masks - low, high - low, out=np.zeros_like(masks), where=high > low)[
        ..., None
    ]
    raised = logit(model, _as_pixels(image * masks, image.dtype))
    weight = np.exp(raised - raised.max())
    return np.maximum(np.tensordot(weight / weight.sum(), channels, axes=1), 0)


def _as_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to the dtype of the images, rounded where that is an integer."""
    return (values.round() if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def _find_ends_up_to(model: keras.Model, layer: str) -> list[str]:
    order = list(layers(model))
    _check_layer(order, layer)
    ends = [name for name in block_ends(model) if order.index(name) <= order.index(layer)]
    return ends or [layer]


def _check_layer(order: list[str], layer: str) -> None:
    if layer not in order:
        near = ", ".join(order[:: max(1, len(order) // 8)])
        raise ConfigError(
            f"the model has no layer {layer!r} with a map; it has {near} and others:"
            " --list_layers names them all"
        )


def _compute_by_gradient(
    model: keras.Model, images: np.ndarray, layer: str, *, method: str
) -> np.ndarray:
    return _run_in_batches(_compile(model, method, layer), images)[1]


METHODS: dict[str, Method] = {
    **{
        name: functools.partial(_compute_by_gradient, method=name)
        for name in (*cam_formulas.FORMULAS, *_SEVERAL_LAYERS)
    },
    "score_cam": score_cam,
    "occlusion": occlusion,
}
"""Every method by name; `cam_formulas` cites those that need the gradient of the logit."""


def _run_in_batches(
    function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], images: np.ndarray
) -> tuple[np.ndarray, ...]:
    batches = (
        tf.constant(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)
    )
    outputs = [function(batch) for batch in batches]
    return tuple(
        np.concatenate([tensor.numpy() for tensor in parts]) for parts in zip(*outputs, strict=True)
    )


@functools.lru_cache(maxsize=32)
def _compile(
    model: keras.Model, method: str, layer: str
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    return _trace(build_in_graph(model, method, layer), model)


@functools.lru_cache(maxsize=8)
def _compile_forward(model: keras.Model) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    return _trace(lambda images: (_logit_of(model(images, training=False)),), model)


def _trace(function: Callable, model: keras.Model) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Compile a function once, for batches of any size."""
    spec = tf.TensorSpec((None, *model.input.shape[1:]), model.input.dtype)
    return tf.function(function, input_signature=[spec]).get_concrete_function()


def _logit_of(outputs: Any) -> Any:
    return outputs[model_lib.LOGIT] if isinstance(outputs, Mapping) else outputs
