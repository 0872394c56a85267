"""The formulas of class activation maps, from features and the gradient of the logit.

Features and gradients are float32 [B, h, w, C], maps float32 [B, h, w].
"""

import tensorflow as tf


def grad_cam(activations: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Compute Grad-CAM: the mean gradient of the logit over the map, times the features; signed.

    Selvaraju et al. 2017, arXiv:1610.02391.
    """
    return tf.einsum("bhwc,bc->bhw", activations, tf.reduce_mean(gradient, axis=(1, 2)))


def hires_cam(activations: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Compute HiResCAM: gradient times features, cell by cell; signed.

    Draelos & Carin 2020, arXiv:2011.08891.

    At the last layer of a network with a piecewise linear head without biases it sums to the logit.
    """
    return tf.reduce_sum(activations * gradient, axis=-1)


def grad_cam_pp(activations: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Compute Grad-CAM++ of exp(logit), nowhere negative.

    Chattopadhay et al. 2018, arXiv:1710.11063, eq. 10 and 19.

    The pixel weights of a channel are divided by their sum, as in the authors' own program.
    """
    total = tf.reduce_sum(activations, axis=(1, 2), keepdims=True)
    share = tf.math.divide_no_nan(gradient**2, 2 * gradient**2 + total * gradient**3)
    share = tf.math.divide_no_nan(share, tf.reduce_sum(share, axis=(1, 2), keepdims=True))
    weight = tf.reduce_sum(share * tf.nn.relu(gradient), axis=(1, 2))
    return tf.nn.relu(tf.einsum("bhwc,bc->bhw", activations, weight))


def layer_cam(activations: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Compute LayerCAM: positive gradient times features, cell by cell; nowhere negative.

    Jiang et al. 2021, LayerCAM, eq. 6 and 8.
    """
    return tf.nn.relu(tf.reduce_sum(activations * tf.nn.relu(gradient), axis=-1))


FORMULAS = {
    "grad_cam": grad_cam,
    "hires_cam": hires_cam,
    "grad_cam_pp": grad_cam_pp,
    "layer_cam": layer_cam,
}
"""Functions from features and gradient, float32 [B, h, w, C] each, to maps [B, h, w]."""


def fuse(maps: list[tf.Tensor]) -> tf.Tensor:
    """Compute the maximum of LayerCAM at the block ends up to a layer, finer than the last map.

    The finer maps are scaled by tanh(2 x / max) (Jiang et al. 2021, eq. 9). The result has the
    scale of the deepest map, so that images stay comparable.
    """
    peaks = [tf.reduce_max(found, axis=(1, 2), keepdims=True) for found in maps]
    scaled = [tf.math.divide_no_nan(found, peak) for found, peak in zip(maps, peaks, strict=True)]
    scaled[:-1] = [tf.tanh(2 * found) for found in scaled[:-1]]
    size = maps[0].shape[1:]
    stretched = [tf.image.resize(found[..., None], size)[..., 0] for found in scaled]
    return tf.reduce_max(tf.stack(stretched), axis=0) * peaks[-1]


def refine(coarse: tf.Tensor, finer: tf.Tensor) -> tf.Tensor:
    """Return a map as fine as the features of an earlier layer, for two more products.

    The channels of the earlier layer are weighted by their covariance with the map over the image.
    Their weighted sum says where the image looks as it does under the map; what is positive of both
    is multiplied. The peak is at most that of the map, so that images stay comparable.

    Args:
      coarse: map, float32 [B, h, w].
      finer: features of a layer with more cells, float32 [B, H, W, C].

    Returns:
      float32 [B, H, W], nowhere negative.
    """
    evidence = tf.nn.relu(tf.image.resize(coarse[..., None], finer.shape[1:3])[..., 0])
    centred = finer - tf.reduce_mean(finer, axis=(1, 2), keepdims=True)
    weight = tf.einsum("bhwc,bhw->bc", centred, evidence)
    alike = tf.nn.relu(tf.einsum("bhwc,bc->bhw", centred, weight))
    peak = tf.reduce_max(alike, axis=(1, 2), keepdims=True)
    return evidence * tf.math.divide_no_nan(alike, peak)
