r"""Compare the training loop with a bare step, a plain Keras script, and its own input.

    humerus-prepare --source=fracatlas/labels.csv --layout=manifest --data_dir=data \
        --image_size=224 --validation_fraction=0 --test_fraction=0
    python -m benchmarks.train --data_dir=data

The same network and recipe for all, with its defaults: rounds of equally many steps, the ways by
turns, medians over the rounds. Each way has a process to itself, for its peak of memory and for its
settings: training is deterministic by default, and the script isn't. Weights are random, which
changes no speed. Writes its table into benchmarks/README.md.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import keras
import ml_collections
import numpy as np
import tensorflow as tf

from benchmarks.tables import markdown, replace_table
from trainer import machine
from trainer.configs import humerus
from trainer.dataset import input_pipeline, prepared_split
from trainer.dataset.augmentation import Augmentation
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepared_split import Split
from trainer.network import model as model_lib
from trainer.network import trainable_layers
from trainer.training import build_run, optimization
from trainer.training.job import TrainingJob
from trainer.training.journal import Journal
from trainer.training.loop import State
from trainer.training.training_step import Objective

LOOP, BARE, KERAS, INPUT = (
    "the whole loop",
    "a compiled step on one batch",
    "a plain Keras script",
    "the input pipeline alone",
)
INPUT_EPOCHS = 5

Round = Callable[[int], int]
"""Runs one round, given its number, and returns how many images went through."""


def main() -> None:
    options = _options()
    os.environ.setdefault(
        "TF_FORCE_GPU_ALLOW_GROWTH", "true"
    )  # where there is one GPU, all have it
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ways = {
            name: stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(1, spawn, _prepare, (name, options, folder))
            )
            for name in _WAYS
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                rates[name].append(way.submit(_rate, number).result())
        rates = {name: found[1:] for name, found in rates.items()}  # the first one compiles
        peaks = {name: way.submit(_peak).result() for name, way in ways.items()}
        checkpoint = statistics.median(
            ways[LOOP].submit(_checkpoint).result() for _ in range(options.rounds)
        )
        size = ways[LOOP].submit(_image_size).result()
    replace_table("train", _table(rates, peaks, checkpoint, size, _config(options), options.steps))


class _Process:
    """What a process is there for: its way, and what it trains on."""

    way: Any
    split: Split


def _prepare(name: str, options: argparse.Namespace, folder: str) -> None:
    config = _config(options)
    keras.config.set_dtype_policy(config.precision)
    if name != KERAS:
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
    pool = prepared_split.load_split(options.data_dir, "train")
    if len(pool) < options.steps * config.global_batch_size:
        raise SystemExit(
            f"{options.data_dir} holds {len(pool)} images; {options.steps} steps need more"
        )
    _Process.split = pool.select(np.arange(options.steps * config.global_batch_size))
    _Process.way = _WAYS[name](_Process.split, config, pathlib.Path(folder))


def _rate(number: int) -> float:
    """Images per second of one round."""
    started = time.monotonic()
    images = _Process.way(number)
    return images / (time.monotonic() - started)


def _peak() -> float:
    """GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _image_size() -> int:
    return _Process.split.images.shape[1]


def _checkpoint() -> float:
    """Seconds."""
    started = time.monotonic()
    _Process.way.checkpoint()
    return time.monotonic() - started


def _config(options: argparse.Namespace) -> ml_collections.ConfigDict:
    config = humerus.get_config()
    config.update(
        {
            "backbone": options.backbone,
            "precision": options.precision,
            "head_epochs": 0,
            "epochs": options.rounds + 1,
        }
    )
    return config


def _architecture(config: ml_collections.ConfigDict) -> model_lib.Architecture:
    return model_lib.Architecture(
        config.backbone, config.pooling, tuple(config.head_widths), config.dropout
    )


class _WholeLoop:
    """An epoch as `fit` trains it, with all that is done between steps. A checkpoint comes once in
    hundreds of them: it is timed apart.
    """

    def __init__(self, split: Split, config: ml_collections.ConfigDict, folder: pathlib.Path):
        # Weights from a file count as pre-trained: the recipe's share of the layers learns, and
        # BatchNormalization stays as it is.
        config.weights = str(folder / "random.keras")
        size = split.images.shape[1]
        model_lib.build(_architecture(config), size).save(config.weights)
        dataset = DatasetInfo(image_size=size, preprocessing={}, fingerprint="")
        job = TrainingJob(config, dataset, data_dir="", workdir=str(folder / "run"))
        self._run = build_run.build_run(job, tf.distribute.get_strategy(), split, split)
        self._journal, self._state, self._config = Journal(self._run), State(), config

    def __call__(self, unused_number: int) -> int:
        self._run.loop.train_epoch(
            self._run.train,
            self._state,
            self._config.global_batch_size,
            augmentation=Augmentation(**self._config.augmentation),
            seed=self._config.seed,
            steps_per_execution=self._config.steps_per_execution,
            after_step=self._journal.after_step,
        )
        self._state.finish_epoch({})
        return len(self._run.train)

    def checkpoint(self) -> None:
        self._journal.save(self._state)


def _bare_step(
    split: Split, config: ml_collections.ConfigDict, unused_folder: pathlib.Path
) -> Round:
    """Forward, backward and update, compiled, and nothing else."""
    model = model_lib.build(_architecture(config), split.images.shape[1])
    (phase,) = optimization.build_phases(model, config, 1, pretrained=True)
    variables, objective = list(phase.variables), Objective(config.label_smoothing, (1.0, 1.0))
    resident = next(iter(_batches(split, config, 0, 0)))

    @tf.function
    def step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logit = tf.squeeze(model(batch["image"], training=True)[model_lib.LOGIT], -1)
            loss = phase.optimizer.scale_loss(tf.reduce_mean(objective(batch["label"], logit)))
        phase.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    def bare(unused_number: int) -> int:
        for _ in range(len(split) // config.global_batch_size):
            loss = step(resident)
        loss.numpy()
        return len(split)

    return bare


def _input_alone(
    split: Split, config: ml_collections.ConfigDict, unused_folder: pathlib.Path
) -> Round:
    def read(number: int) -> int:
        for epoch in range(INPUT_EPOCHS):
            for batch in _batches(split, config, epoch, number):
                last = batch["image"]
        last.numpy()
        return INPUT_EPOCHS * len(split)

    return read


def _batches(
    split: Split, config: ml_collections.ConfigDict, epoch: int, seed: int
) -> tf.data.Dataset:
    augmentation, strategy = Augmentation(**config.augmentation), tf.distribute.get_strategy()
    return input_pipeline.make_batches(
        split,
        strategy,
        config.global_batch_size,
        epoch=epoch,
        seed=seed,
        augmentation=augmentation,
        shuffle=True,
    )


def _plain_keras(split: Split, config: ml_collections.ConfigDict, folder: pathlib.Path) -> Round:
    """Train as Keras's guides suggest: files in a folder for each class, random layers, `compile`,
    `fit`.
    """
    for index, label in enumerate(split.labels):
        path = folder / "files" / ("positive" if label else "negative") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), split.images[index])
    size, wanted = split.images.shape[1], config.augmentation
    files = keras.utils.image_dataset_from_directory(
        folder / "files",
        color_mode="grayscale",
        image_size=(size, size),
        batch_size=config.global_batch_size,
        verbose=False,
    )
    change = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal_and_vertical"),
            keras.layers.RandomRotation(wanted.rotation / 360, fill_mode="constant"),
            keras.layers.RandomTranslation(wanted.shift, wanted.shift, fill_mode="constant"),
            keras.layers.RandomZoom(wanted.zoom, fill_mode="constant"),
            keras.layers.RandomContrast(wanted.contrast),
            keras.layers.RandomBrightness(wanted.brightness, value_range=(0, 255)),
        ]
    )
    augmented = files.map(
        lambda image, label: (tf.cast(change(image, training=True), tf.uint8), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    network = model_lib.build(_architecture(config), size)
    trainable_layers.freeze(network, config.unfreeze_layers, train_batch_norm=False)
    model = keras.Model(network.input, network.output[model_lib.LOGIT])
    model.compile(
        keras.optimizers.AdamW(config.learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def keras_script(unused_number: int) -> int:
        model.fit(augmented, verbose=0)
        return len(split)

    return keras_script


_WAYS: dict[str, Callable[[Split, ml_collections.ConfigDict, pathlib.Path], Round]] = {
    LOOP: _WholeLoop,
    BARE: _bare_step,
    KERAS: _plain_keras,
    INPUT: _input_alone,
}


def _table(
    rates: Mapping[str, Sequence[float]],
    peaks: Mapping[str, float],
    checkpoint: float,
    size: int,
    config: ml_collections.ConfigDict,
    steps: int,
) -> str:
    """`checkpoint`: seconds that one takes."""
    rows = []
    for name, found in rates.items():
        ratios = [ours / other for ours, other in zip(rates[LOOP], found, strict=True)]
        ratio = (
            ""
            if name == LOOP
            else f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )
        rate = f"{statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f})"
        rows.append([name, rate, ratio, f"{peaks[name]:.1f}"])
    every = config.checkpoint_every_steps
    training = every * config.global_batch_size / statistics.median(rates[LOOP])
    about = (
        f"{config.backbone} at {size} px, batches of {config.global_batch_size},"
        f" {config.precision}, unfreeze_layers={config.unfreeze_layers};"
        f" {len(rates[LOOP])} rounds of"
        f" {steps} steps on real radiographs; {_machine()}. A checkpoint takes {checkpoint:.2f} s:"
        f" every {every} steps, {checkpoint / training:.1%} of the time, which no round holds."
    )
    header = [
        "what",
        "images/s, median (range)",
        "the loop over it, median (range)",
        "peak memory, GiB",
    ]
    return f"{about}\n\n{markdown(header, rows)}"


def _machine() -> str:
    """Processor and devices, as this system names them."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join([f"{os.cpu_count()} x {machine.processor()}", *gpus])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="where humerus-prepare wrote")
    parser.add_argument("--backbone", default="densenet121")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
