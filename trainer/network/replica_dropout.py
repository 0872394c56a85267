"""Drop units so that any number of replicas and micro-batches drops what one device would."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("humerus")
class ReplicaDropout(keras.layers.Dropout):
    """Dropout whose mask depends on seed, step and place of the example in the global batch.

    Keras's layer draws the same mask on every replica, since the seed is the same. This one draws
    the mask of the global batch, and each replica takes its own rows. On one device both are the
    same.

    Attributes:
      micro_batches: calls in one training step, each with the next rows of the replica's batch.
    """

    micro_batches = 1

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return float [b, C], in training with the share `rate` of the units set to zero."""
        if not (training and self.rate):
            return inputs
        context, parts = tf.distribute.get_replica_context(), self.micro_batches
        # As Keras does, since not every device draws with seeds of 64 bits.
        seeds = tf.cast(self.seed_generator.next() % (tf.int32.max - 1), tf.int32)
        seed, calls = tf.unstack(seeds)
        shape = (context.num_replicas_in_sync * parts, tf.shape(inputs)[0], inputs.shape[1])
        masks = tf.nn.experimental.stateless_dropout(
            tf.ones(shape, inputs.dtype), self.rate, tf.stack([seed, calls // parts])
        )
        first = parts * context.replica_id_in_sync_group
        return inputs * masks[first + calls % parts]
