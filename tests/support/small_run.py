"""Make a tiny training run: drawn images that show their label, prepared or in memory."""

import csv
import pathlib

import numpy as np
from PIL import Image

from trainer.dataset.prepared_split import Split

SIZE = 48
SPLITS = {"train": 26, "validation": 10, "test": 10}


def pictures(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a bright bar where the label is 1: uint8 [count, size, size, 1] and int64
    [count], labels by turns.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 160, (count, size, size, 1), np.uint8)
    labels = np.arange(count) % 2
    for i, row in zip(np.flatnonzero(labels), rng.integers(4, size - 10, count), strict=False):
        images[i, row : row + 5] += 90
    return images, labels.astype(np.int64)


def split(count: int, size: int = 32, seed: int = 0, name: str = "train") -> Split:
    """Return a split in memory, each image a patient of its own."""
    images, labels = pictures(count, size, seed)
    names = np.array([f"{name}{i}" for i in range(count)])
    return Split(
        name, images, labels, patient_id=names, study_id=names, path=names, attributes=({},) * count
    )


def write_source(
    folder: pathlib.Path, counts: dict[str, int] = SPLITS, one_class: tuple[str, ...] = ()
) -> pathlib.Path:
    """PNG files and their manifest; the splits in `one_class` hold negatives only. Returns the
    manifest.
    """
    folder.mkdir(parents=True)
    rows = []
    for seed, (name, count) in enumerate(counts.items()):
        images, labels = pictures(count * 2 if name in one_class else count, SIZE, seed)
        chosen = np.flatnonzero(labels == 0) if name in one_class else np.arange(count)
        for i in chosen:
            path = f"{name}{i}.png"
            Image.fromarray(images[i, :, :, 0]).save(folder / path)
            rows.append((path, "positive" if labels[i] else "negative", f"{name}{i // 2}", name))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient", "split"), *rows])
    return folder / "manifest.csv"
