"""Drop units so that any number of replicas drops what one device would."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("humerus")
class ReplicaDropout(keras.layers.Dropout):
    """Dropout whose mask depends on seed, step and place of the example in the global batch.

    Keras's layer draws the same mask on every replica, since the seed is the same. This one draws
    the mask of the global batch, and each replica takes its own rows. On one device both are the
    same.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return float [b, C], in training with the share `rate` of the units set to zero."""
        if not (training and self.rate):
            return inputs
        context = tf.distribute.get_replica_context()
        rows = tf.shape(inputs)[0]
        everywhere = tf.ones((rows * context.num_replicas_in_sync, inputs.shape[1]), inputs.dtype)
        mask = keras.random.dropout(everywhere, self.rate, seed=self.seed_generator)
        first = rows * context.replica_id_in_sync_group
        return inputs * mask[first : first + rows]
