r"""Measure how the input of training scales with the cores, and what limits it.

    python -m benchmarks.train_input --size=256 --cores=1,2

Each way reads the same generated images in batches of 16, in a process of its own on its cores;
the fastest of several epochs counts, as the first one starts threads. Writes its table into
benchmarks/README.md.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks import tables
from trainer.dataset import prepared_split
from trainer.dataset.augmentation import Augmentation

BATCH_SIZE, IMAGES, EPOCHS, SMALL = 16, 2000, 4, 8

Rate = tuple[float, float]
"""Images per second, and processor time of an image in microseconds."""


def run_pipeline(cores: int, size: int, augment: bool = True) -> Rate:
    """Read epochs by the pipeline of training, deterministic as training is."""
    import tensorflow as tf

    from trainer.dataset import input_pipeline

    tf.config.experimental.enable_op_determinism()
    names = np.arange(IMAGES).astype(str)
    labels, attributes = np.arange(IMAGES) % 2, ({},) * IMAGES
    split = prepared_split.Split("train", draw(size), labels, names, names, names, attributes)
    augmentation = Augmentation() if augment else None

    def read(epoch: int) -> None:
        for batch in input_pipeline.make_batches(
            split,
            tf.distribute.get_strategy(),
            BATCH_SIZE,
            epoch=epoch,
            augmentation=augmentation,
            shuffle=True,
        ):
            last = batch["image"]
        last.numpy()

    return take_fastest(read)


def run_without_augmentation(cores: int, size: int) -> Rate:
    return run_pipeline(cores, size, augment=False)


def run_on_small_images(cores: int, unused_size: int) -> Rate:
    """With images of `SMALL` px, what remains is the cost of calls."""
    return run_pipeline(cores, SMALL)


def run_threads(cores: int, size: int) -> Rate:
    """Call OpenCV as the pipeline does, in threads, without TensorFlow."""
    with concurrent.futures.ThreadPoolExecutor(cores, initializer=prepare, initargs=(size,)) as run:
        return take_fastest(lambda epoch: [*run.map(augment, range(0, IMAGES, BATCH_SIZE))])


def run_processes(cores: int, size: int) -> Rate:
    """Call OpenCV in processes, each on its share; no pixels leave them."""
    with multiprocessing.get_context("spawn").Pool(cores, prepare, (size,)) as pool:
        return take_fastest(
            lambda epoch: pool.map(
                augment, range(0, IMAGES, BATCH_SIZE), IMAGES // 10 // BATCH_SIZE
            )
        )


_prepared: dict[str, np.ndarray] = {}
"""The images that this process or its threads augment, by the name `images`."""


def prepare(size: int) -> None:
    _prepared["images"] = draw(size)


def augment(first: int) -> None:
    """Change the tone of a batch and turn it, by the same two calls per image as the pipeline."""
    images = _prepared["images"][first : first + BATCH_SIZE]
    changed, size = np.empty_like(images), images.shape[1:3]
    levels, turned = np.arange(256, dtype=np.uint8), cv2.getRotationMatrix2D((128, 128), 20, 1.1)
    for image, target in zip(images, changed, strict=True):
        toned = cv2.LUT(image[:, :, 0], levels)
        cv2.warpAffine(toned, turned, size, dst=target[:, :, 0], flags=cv2.INTER_LINEAR)


def draw(size: int) -> np.ndarray:
    """Return uint8 [IMAGES, size, size, 1]."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 1), dtype=np.uint8)


def take_fastest(read: Callable[[int], object]) -> Rate:
    rates = []
    for epoch in range(EPOCHS):
        started, spent = time.perf_counter(), time.process_time()
        read(epoch)
        seconds = time.perf_counter() - started
        rates.append((IMAGES / seconds, 1e6 * (time.process_time() - spent) / IMAGES))
    return max(rates)


WAYS: dict[str, Callable[[int, int], Rate]] = {
    "the input pipeline": run_pipeline,
    "the same without augmentation": run_without_augmentation,
    f"the same with images of {SMALL} px": run_on_small_images,
    "its calls of OpenCV in threads": run_threads,
    "its calls of OpenCV in processes": run_processes,
}


def measure(name: str, cores: int, size: int) -> Rate:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return WAYS[name](cores, size)


def tabulate(found: dict[tuple[str, int], Rate]) -> str:
    """Return the table; `found` has a rate for each way and number of cores."""
    rows = []
    for (name, cores), (rate, spent) in found.items():
        alone = found.get((name, 1), (0.0, 0.0))[0]
        times = f"{rate / alone:.2f}" if cores > 1 and alone else ""
        processor = "" if name.endswith("processes") else f"{spent:.0f}"
        rows.append([name, str(cores), f"{rate:,.0f}", times, processor])
    header = ["", "cores", "images/s", "times one core", "CPU µs/image"]
    return tables.markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--cores", default="1,2", help="numbers of cores, comma-separated")
    options = parser.parse_args()
    found = {}
    for name in WAYS:
        for cores in map(int, options.cores.split(",")):
            # A way's own processes need a parent that is no daemon.
            with concurrent.futures.ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn")
            ) as alone:
                found[name, cores] = alone.submit(measure, name, cores, options.size).result()
            print(name, cores, found[name, cores], flush=True)
    tables.replace_table("train_input", tabulate(found))


if __name__ == "__main__":
    main()
