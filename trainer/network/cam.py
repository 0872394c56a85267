"""Compute Grad-CAM without a backward pass.

With global pooling, the weights that Grad-CAM gives the channels of the last feature map follow
from the gradient of the logit with respect to the pooled vector. They are the gradient of the
logit, averaged over the map (Selvaraju et al. 2017, arXiv:1610.02391, eq. 1):

    avg: d logit / d A[i, j, k] = g[k] / (h w) everywhere, whose mean is g[k] / (h w);
    max: d logit / d A[i, j, k] = g[k] at the maximum, 0 elsewhere; the mean is g[k] / (h w) too.

The gradient g goes back through the Dense ReLU head as a few matrix products with 0/1 masks. These
are plain forward operations, which export, compile and convert like any other.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.network import model as model_lib


def head_gradient(pooled: tf.Tensor, head: Sequence[keras.layers.Dense]) -> tf.Tensor:
    """Return the gradient of the logit with respect to the pooled vector.

    Args:
      pooled: float32 [B, C].
      head: Dense layers from the pooled vector to the logit; all but the last with ReLU.

    Returns:
      float32 [B, C].
    """
    x, masks = pooled, []
    for layer in head[:-1]:
        x = tf.nn.relu(x @ layer.kernel + layer.bias)
        masks.append(tf.cast(x > 0, x.dtype))
    gradient = tf.ones_like(pooled[:, :1]) @ tf.transpose(tf.convert_to_tensor(head[-1].kernel))
    for layer, mask in zip(reversed(head[:-1]), reversed(masks), strict=True):
        gradient = (gradient * mask) @ tf.transpose(tf.convert_to_tensor(layer.kernel))
    return gradient


def average(maps: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the mean of the maps of several networks, float32 [B, h, w] each.

    Where their cells differ in size, maps with fewer cells are first interpolated to the finest
    ones. The sum of a map stays what it was, since cells are contributions to the logit.
    """
    height, width = (max(one.shape[axis] for one in maps) for axis in (1, 2))
    return tf.add_n([_resize(one, height, width) for one in maps]) / len(maps)


def _resize(maps: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Return maps [B, h, w] interpolated to [B, height, width], each with the same sum as before.

    Interpolation alone changes the mean a little.
    """
    if maps.shape[1:] == (height, width):
        return maps
    finer = tf.image.resize(maps[..., None], (height, width))[..., 0]
    cells = maps.shape[1] * maps.shape[2] / (height * width)
    change = tf.reduce_mean(finer, (1, 2)) - tf.reduce_mean(maps, (1, 2))
    return (finer - change[:, None, None]) * cells


def grad_cam(model: keras.Model, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Return the signed Grad-CAM of the last feature map.

    With average pooling and a linear head the map sums to the logit less its bias, so that a cell
    is its contribution in logits.

    Args:
      model: a model of `model.build`.
      outputs: what it returned for a batch: `features` float32 [B, h, w, C] and `pooled` float32
        [B, C].

    Returns:
      float32 [B, h, w], positive where the evidence speaks for abnormal.
    """
    features = outputs[model_lib.FEATURES]
    gradient = head_gradient(outputs[model_lib.POOLED], model_lib.head_layers(model))
    cells = features.shape[1] * features.shape[2]
    return tf.einsum("bhwc,bc->bhw", features, gradient) / cells
