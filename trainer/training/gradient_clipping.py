"""Limit the norm of the gradients, the same way on any number of replicas."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def clip_global_norm(
    gradients: Sequence[tf.Tensor], limit: float, optimizer: keras.optimizers.Optimizer
) -> list[tf.Tensor]:
    """Scale the gradients of all replicas together down to a norm of `limit`, if it is larger.

    Keras's `global_clipnorm` looks at the gradients of one replica, before they are summed.

    Args:
      gradients: of this replica, as the tape returned them; the global gradients are their sums.
      limit: largest L2 norm of all of them together (Pascanu et al. 2013, arXiv:1211.5063).
      optimizer: what the gradients are given to. It may have scaled the loss, and sums over the
        replicas.

    Returns:
      This replica's equal share of the clipped sums.
    """
    context = tf.distribute.get_replica_context()
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    clipped, _ = tf.clip_by_global_norm(summed, optimizer.scale_loss(tf.constant(limit)))
    return [gradient / context.num_replicas_in_sync for gradient in clipped]
