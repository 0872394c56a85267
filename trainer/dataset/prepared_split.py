"""Load a split of a prepared data set: its images decoded, its labels and its patients.

Images are decoded once: into memory, or into an unlinked file on the local disk if they are too
large.
"""

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from trainer import machine, storage
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.example import SPLITS
from trainer.dataset.locate import locate
from trainer.errors import ConfigError, DataError
from trainer.program import telemetry

_UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,  # there are more or fewer records than announced
)
_OPERATION = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)
"""The names of TensorFlow's operation in its messages."""
_REMEDY = "prepare it again with humerus-prepare --overwrite"
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


def read_dataset_info(data_dir: str) -> DatasetInfo:
    """Read what preparation recorded beside the images.

    Raises:
      DataError: there is no prepared data set, or its metadata are damaged.
    """
    described = _open(data_dir).info
    metadata = described.metadata if isinstance(described.metadata, Mapping) else {}
    found = DatasetInfo.parse(metadata, data_dir)
    if described.features["image"].shape != (found.image_size, found.image_size, 1):
        raise DataError(
            f"the metadata of {data_dir} say that images have {found.image_size} px, and its"
            f" records hold images of the shape {described.features['image'].shape}; {_REMEDY}"
        )
    return found


def _open(data_dir: str) -> tfds.core.DatasetBuilder:
    """Return what reads the data set in `data_dir`.

    Raises:
      DataError: there is none, or its description is damaged.
    """
    directory = locate(data_dir)
    try:
        builder = tfds.builder_from_directory(directory)
        _ = builder.info.features["image"].shape, builder.info.metadata  # read only now
        return builder
    except OSError:
        raise
    except Exception as error:  # TFDS has no error of its own for a damaged file
        if isinstance(storage.translate_error(error), OSError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise DataError(
            f"the description of {directory} is damaged ({reason}): one of its *.json files is "
            f"missing, empty or cut short; {_REMEDY}"
        ) from error


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
    builder = _open(data_dir)
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
            f"the records of {data_dir}, split {name!r}, can't be read: "
            f"{_OPERATION.sub('', error.message).rstrip('.')}; {_REMEDY}"
        ) from error
    if (found := len(columns["label"])) != count:
        raise DataError(
            f"{data_dir}, split {name!r}, announces {count} images and holds {found}; {_REMEDY}"
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
            "set TMPDIR to a folder on a larger disk"
        ) from error
    logging.info("Decoded images take %.1f GB: kept in a temporary file in %s.", size / 1e9, folder)
    return np.memmap(file, np.uint8, "w+", shape=shape)
