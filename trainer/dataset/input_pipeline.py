"""Make batches of `uint8 [B, size, size, 1]` from a loaded split, augmented in training.

An epoch is a pure function of (seed, epoch), which gives the order of the examples and their
augmentation. So a run can continue at any step of any epoch, and any number of replicas gets
the same batches.
"""

import numpy as np
import tensorflow as tf

from trainer import machine
from trainer.dataset.augmentation import Augmentation, augment, draw_augmentation
from trainer.dataset.prepared_split import Split
from trainer.errors import ConfigError


def make_batches(
    split: Split,
    strategy: tf.distribute.Strategy,
    global_batch_size: int,
    *,
    epoch: int = 0,
    first_step: int = 0,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    shuffle: bool = False,
) -> tf.distribute.DistributedDataset:
    """Return one epoch from `first_step` on: each example once, for any number of replicas.

    The last batch is filled up with real examples of weight 0. So no replica is without examples,
    BatchNormalization gets no artificial pixels, and no sum counts an example twice.

    Args:
      split: images uint8 [N, size, size, 1], labels int64 [N].
      strategy: whose replicas share each batch.
      global_batch_size: examples of a step on all replicas together.
      epoch, seed: decide the order of the examples and their augmentation.
      first_step: steps of the epoch to leave out, from its beginning.
      augmentation: strengths of the augmentation; None changes no pixel.
      shuffle: whether the order is random; otherwise it is that of the split.

    Raises:
      ConfigError: the batch cannot be divided equally among the replicas.

    Returns:
      Distributed dataset of dicts, per replica: `image` uint8 [b, size, size, 1], `label`
      float32 [b], `weight` float32 [b]. The weights of a global batch sum to 1.
    """
    steps = count_steps_per_epoch(len(split), global_batch_size)
    order = np.arange(len(split))
    if shuffle:
        order = np.random.default_rng([seed, epoch, 0]).permutation(order)
    positions = _fill_up(order, steps, global_batch_size)
    if augmentation:
        random = np.random.default_rng([seed, epoch, 1])
        positions |= draw_augmentation(
            augmentation, len(positions["index"]), split.images.shape[1], random
        )

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        per_replica = compute_per_replica_batch_size(
            global_batch_size, context.num_replicas_in_sync
        )
        local = context.num_replicas_in_sync // context.num_input_pipelines
        mine = slice(context.input_pipeline_id * local, (context.input_pipeline_id + 1) * local)

        def for_this_worker(column: np.ndarray) -> np.ndarray:
            by_replica = column.reshape(
                steps, context.num_replicas_in_sync, per_replica, *column.shape[1:]
            )
            return by_replica[first_step:, mine].reshape(-1, per_replica, *column.shape[1:])

        plan = tf.data.Dataset.from_tensor_slices(
            {name: for_this_worker(column) for name, column in positions.items()}
        )
        prepared = plan.map(
            lambda rows: _materialise(split, rows),
            num_parallel_calls=machine.cores(),
            deterministic=True,
        )
        prefetched = prepared.prefetch(2 * local)
        gpus = tf.config.list_logical_devices("GPU")
        # With several devices, the strategy prefetches itself.
        if context.num_replicas_in_sync == 1 and gpus:
            prefetched = prefetched.apply(tf.data.experimental.prefetch_to_device(gpus[0].name))
        return prefetched.with_options(_disable_autotune())

    return strategy.distribute_datasets_from_function(pipeline)


def _fill_up(order: np.ndarray, steps: int, batch_size: int) -> dict[str, np.ndarray]:
    """Return the `index` of each position of an epoch and its `weight`, whole batches."""
    padded = np.resize(order, steps * batch_size)
    real = np.arange(len(padded)) < len(order)
    weight = real / np.repeat(real.reshape(steps, -1).sum(1), batch_size)
    return {"index": padded, "weight": weight.astype("float32")}


def _disable_autotune() -> tf.data.Options:
    """Return options without autotuning.

    The end of an epoch waits for the tuner's thread, which sleeps ever longer: half a minute was
    measured with TensorFlow 2.21.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def count_steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """Return the number of batches that hold each example once; the last one is filled up."""
    return -(-examples // global_batch_size)


def compute_per_replica_batch_size(
    global_batch_size: int, replicas: int, micro_batches: int = 1
) -> int:
    """Return the number of examples per replica and step.

    Args:
      micro_batches: equal parts that each replica's share is to be divided into.

    Raises:
      ConfigError: the batch cannot be divided equally; the message names the nearest that can.
    """
    parts = replicas * micro_batches
    if global_batch_size % parts:
        below, above = (
            global_batch_size // parts * parts,
            -(-global_batch_size // parts) * parts,
        )
        nearest = f"{below} or {above}" if below else str(above)
        divided = f" with gradient_accumulation_steps={micro_batches}" if micro_batches > 1 else ""
        raise ConfigError(
            f"global_batch_size={global_batch_size} doesn't divide among {replicas} replicas"
            f"{divided}; the nearest that do: {nearest}"
        )
    return global_batch_size // replicas


def _materialise(split: Split, rows: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Turn the positions of one replica's batch into its pixels, labels and weights."""

    def read(index: np.ndarray, *change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = split.images[index]
        return (augment(images, *change) if change else images), split.labels[index].astype(
            "float32"
        )

    change = [rows[name] for name in ("transform", "tone") if name in rows]
    # If operations must be deterministic, TensorFlow calls a stateful function for one batch at a
    # time.
    image, label = tf.numpy_function(
        read, [rows["index"], *change], (tf.uint8, tf.float32), stateful=False
    )
    image = tf.ensure_shape(image, (rows["index"].shape[0], *split.images.shape[1:]))
    return {
        "image": image,
        "label": tf.ensure_shape(label, rows["index"].shape),
        "weight": rows["weight"],
    }
