"""Read prepared TFRecords as batches of `uint8 [B, size, size, 1]`; augment them in training.

A split is decoded once: into memory, or into an unlinked file on the local disk if it is too large.
After that an epoch is a pure function of (seed, epoch), which gives the order of the examples and
their augmentation. So a run can continue at any step of any epoch, and any number of replicas gets
the same batches.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from trainer import machine
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.example import SPLITS
from trainer.dataset.locate import locate
from trainer.errors import ConfigError, DataError
from trainer.program import telemetry

_BILINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_UNREADABLE = (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError)
MEMORY_SHARE = 0.3
"""Share of the memory that decoded images may occupy before `cache=auto` uses the disk."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Holds a decoded split.

    Attributes:
      images: uint8 [N, size, size, 1], indexed along the first axis only.
      labels: int64 [N], 1 for positive.
      patient_id, study_id, path: str [N].
      attributes: one mapping per image, of what its source says beside the label.
    """

    name: str
    images: "np.ndarray | Rows"
    labels: np.ndarray
    patient_id: np.ndarray
    study_id: np.ndarray
    path: np.ndarray
    attributes: tuple[Mapping[str, str], ...]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "Split":
        """Return the examples at `indices`, int [M], in that order; pixels are not copied."""
        columns = {
            name: getattr(self, name)[indices]
            for name in ("labels", "patient_id", "study_id", "path")
        }
        attributes = tuple(self.attributes[i] for i in indices)
        return dataclasses.replace(
            self, images=Rows(self.images, indices), attributes=attributes, **columns
        )


class Rows:
    """Selects rows of an array without a copy, so that a fold of a split needs no memory."""

    def __init__(self, base: "np.ndarray | Rows", index: np.ndarray):
        self._base, self._index = base, np.asarray(index, np.int64)
        self.shape: tuple[int, ...] = (len(self._index), *base.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: "int | slice | np.ndarray") -> np.ndarray:
        return self._base[self._index[rows]]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Holds the ranges of random augmentation; 0 or False switches one off.

    Attributes:
      horizontal_flip, vertical_flip: whether to mirror with probability 0.5.
      rotation: largest angle either way, in degrees.
      shift: largest shift along each axis, as a fraction of the side.
      zoom: the factor is from 1 / (1 + zoom) to 1 + zoom.
      contrast: the exponent of a gamma curve is from 1 / (1 + contrast) to 1 + contrast. Black
        stays black, including the letterbox.
      brightness: the gain is from 1 / (1 + brightness) to 1 + brightness.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 30.0
    shift: float = 0.05
    zoom: float = 0.1
    contrast: float = 0.2
    brightness: float = 0.1


def read_dataset_info(data_dir: str) -> DatasetInfo:
    """Read what preparation recorded beside the images.

    Raises:
      DataError: there is no prepared data set, or its metadata lack a field.
    """
    metadata = tfds.builder_from_directory(locate(data_dir)).info.metadata
    return DatasetInfo.parse(metadata or {}, data_dir)


def load_split(data_dir: str, name: str, cache: str = "auto") -> Split:
    """Decode one split; a split that is empty in the data set has no examples.

    Args:
      data_dir: the data set that `humerus-prepare` wrote.
      name: `train`, `validation`, `test`, or several joined by `+`.
      cache: `memory`, `disk`, or `auto`, which uses memory up to `MEMORY_SHARE` of it.

    Raises:
      DataError: there is no such split, or its records are damaged.
      ConfigError: the images do not fit into memory.
      OSError: they do not fit onto the disk.
    """
    builder = tfds.builder_from_directory(locate(data_dir))
    wanted = name.split("+")
    if unknown := set(wanted) - set(SPLITS):
        raise DataError(
            f"{data_dir} has no split {min(unknown)!r}; it has {', '.join(builder.info.splits)}"
        )
    present = [split for split in wanted if split in builder.info.splits]
    count = sum(builder.info.splits[split].num_examples for split in present)
    images = allocate((count, *builder.info.features["image"].shape), cache)
    try:
        columns = _read_records(builder, present if count else [], images)
    except _UNREADABLE as error:
        raise DataError(
            f"the records of {data_dir}, split {name!r}, can't be read: {error.message}; "
            "prepare them again"
        ) from error
    if (found := len(columns["label"])) != count:
        raise DataError(
            f"{data_dir}, split {name!r}, announces {count} images and holds {found}; "
            "prepare them again"
        )
    text = {
        key: np.array([value.decode() for value in columns[key]], dtype=str)
        for key in ("patient_id", "study_id", "path")
    }
    attributes = tuple(json.loads(value) for value in columns["attributes"])
    return Split(
        name, images, np.asarray(columns["label"], np.int64), attributes=attributes, **text
    )


def _read_records(
    builder: tfds.core.DatasetBuilder, splits: Sequence[str], images: np.ndarray
) -> dict[str, list]:
    """Decode the images of some splits into `images`; return their other features by name."""
    columns: dict[str, list] = {
        key: [] for key in ("label", "patient_id", "study_id", "path", "attributes")
    }
    if not splits:
        return columns
    records = builder.as_dataset(split="+".join(splits), shuffle_files=False, batch_size=64)
    for batch in telemetry.report_each(records.as_numpy_iterator()):
        filled = len(columns["label"])
        images[filled : filled + len(batch["image"])] = batch["image"]
        for key, values in columns.items():
            values.extend(batch[key])
    return columns


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

    Returns:
      Distributed dataset of dicts, per replica: `image` uint8 [b, size, size, 1], `label`
      float32 [b], `weight` float32 [b]. The weights of a global batch sum to 1.
    """
    steps = count_steps_per_epoch(len(split), global_batch_size)
    order = _shuffle_order(len(split), seed, epoch) if shuffle else np.arange(len(split))
    positions = _fill_up(order, steps, global_batch_size)
    if augmentation:
        random = np.random.default_rng([seed, epoch, 1])
        positions |= _draw_augmentation(
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


def compute_per_replica_batch_size(global_batch_size: int, replicas: int) -> int:
    """Return the number of examples per replica and step.

    Raises:
      ConfigError: the batch cannot be divided equally; the message names the nearest that can.
    """
    if global_batch_size % replicas:
        below, above = (
            global_batch_size // replicas * replicas,
            -(-global_batch_size // replicas) * replicas,
        )
        nearest = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"global_batch_size={global_batch_size} doesn't divide among {replicas} replicas; "
            f"the nearest that do: {nearest}"
        )
    return global_batch_size // replicas


def _materialise(split: Split, rows: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Turn the positions of one replica's batch into its pixels, labels and weights."""

    def read(index: np.ndarray, *change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = split.images[index]
        return (_augment(images, *change) if change else images), split.labels[index].astype(
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


def _augment(images: np.ndarray, transform: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Change the tone of images and warp them.

    OpenCV needs an eighth of the time of TensorFlow's operations, and releases the GIL.

    Args:
      images: uint8 [B, size, size, 1].
      transform: float32 [B, 2, 3], from output to input pixels.
      tone: uint8 [B, 256], by grey level.

    Returns:
      uint8 [B, size, size, 1].
    """
    changed = np.empty_like(images)
    size = (images.shape[2], images.shape[1])
    for image, matrix, levels, target in zip(images, transform, tone, changed, strict=True):
        # Pixels from outside the image become black.
        cv2.warpAffine(
            cv2.LUT(image[:, :, 0], levels), matrix, size, dst=target[:, :, 0], flags=_BILINEAR
        )
    return changed


def _draw_augmentation(
    augmentation: Augmentation, count: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw the parameters of `_augment` for each position, with leading dimension `count`."""

    def factor(reach: float) -> np.ndarray:
        return np.exp(rng.uniform(-1, 1, count) * np.log1p(reach))

    flips = [np.where(rng.random(count) < 0.5, -1.0, 1.0) for _ in range(2)]
    flip_x = flips[0] if augmentation.horizontal_flip else np.ones(count)
    flip_y = flips[1] if augmentation.vertical_flip else np.ones(count)
    angle = np.deg2rad(augmentation.rotation) * rng.uniform(-1, 1, count)
    zoom = factor(augmentation.zoom)
    shift = augmentation.shift * size * rng.uniform(-1, 1, (2, count))
    a, b = np.cos(angle) * flip_x / zoom, -np.sin(angle) * flip_y / zoom
    c, d = np.sin(angle) * flip_x / zoom, np.cos(angle) * flip_y / zoom
    centre = (size - 1) / 2
    tx = centre - a * centre - b * centre + shift[0]
    ty = centre - c * centre - d * centre + shift[1]
    transform = np.stack([a, b, tx, c, d, ty], axis=1).reshape(count, 2, 3).astype("float32")
    gamma, gain = factor(augmentation.contrast)[:, None], factor(augmentation.brightness)[:, None]
    tone = np.minimum(gain * (np.arange(256) / 255.0) ** gamma, 1.0) * 255.0
    return {"transform": transform, "tone": np.rint(tone).astype(np.uint8)}


def _shuffle_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the shuffled order of an epoch, int [count]."""
    return np.random.default_rng([seed, epoch, 0]).permutation(count)


def allocate(shape: tuple[int, ...], cache: str) -> np.ndarray:
    """Allocate uint8 of this shape in memory or in an unlinked file; see `load_split`."""
    if cache not in ("auto", "memory", "disk"):
        raise ConfigError(f"cache={cache!r}: expected auto, memory or disk")
    size = int(np.prod(shape, dtype=np.int64))
    if cache == "auto":
        cache = "memory" if size < MEMORY_SHARE * machine.memory() else "disk"
    if cache == "memory" or not size:
        try:
            return np.empty(shape, np.uint8)
        except MemoryError as error:
            raise ConfigError(
                f"{size / 1e9:.1f} GB of decoded images don't fit into memory; "
                "set --config.cache=disk"
            ) from error
    file = tempfile.TemporaryFile(prefix="humerus-")  # noqa: SIM115 (lives as long as the array)
    folder = tempfile.gettempdir()
    try:
        # A disk that fills up later would end the process without a message (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(
            f"{folder} has no room for {size / 1e9:.1f} GB of decoded images ({error.strerror}); "
            "let TMPDIR name a larger disk"
        ) from error
    logging.info("Decoded images take %.1f GB: kept in a temporary file in %s.", size / 1e9, folder)
    return np.memmap(file, np.uint8, "w+", shape=shape)
