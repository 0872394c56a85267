r"""How much of the processor does training itself get? The whole loop beside a bare step, a plain Keras script, and its own input.

    humerus-prepare --source=fracatlas/labels.csv --layout=manifest --data_dir=data --image_size=224 \
        --validation_fraction=0 --test_fraction=0
    python -m benchmarks.train --data_dir=data

One process, the same network and recipe for all: rounds of equally many steps, the ways by turns, medians over the rounds. Weights are
random, which changes no speed. Writes its table into benchmarks/README.md.
"""

import argparse
import pathlib
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping

import cv2
import keras
import ml_collections
import numpy as np
import tensorflow as tf

from benchmarks.tables import markdown, replace_table
from trainer import assemble, input_pipeline, optimization
from trainer import model as model_lib
from trainer.configs import humerus
from trainer.fit import Run
from trainer.input_pipeline import Augmentation, Split
from trainer.loop import State

LOOP, BARE, KERAS, INPUT = "the whole loop", "a compiled step on one batch", "a plain Keras script", "the input pipeline alone"
INPUT_EPOCHS = 5


def main() -> None:
    options = _options()
    config = humerus.get_config()
    config.update({"backbone": options.backbone, "head_epochs": 0, "precision": options.precision, "deterministic": False})
    keras.config.set_dtype_policy(config.precision)
    pool = input_pipeline.load_split(options.data_dir, "train")
    if len(pool) < options.steps * config.global_batch_size:
        raise SystemExit(f"{options.data_dir} holds {len(pool)} images; {options.steps} steps need more")
    split = pool.select(np.arange(options.steps * config.global_batch_size))
    with tempfile.TemporaryDirectory() as folder:
        ways = _ways(split, config, pathlib.Path(folder))
        for way in ways.values():
            way(0)  # compiles
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(1, options.rounds + 1):
            for name, way in ways.items():
                started = time.monotonic()
                images = way(round_number)
                rates[name].append(images / (time.monotonic() - started))
    replace_table("train", _table(rates, split, config))


def _ways(split: Split, config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, Callable[[int], int]]:
    """By name: what runs one round, given its number, and returns how many images went through."""
    # Weights from a file count as pre-trained: the recipe's share of the layers learns, and BatchNormalization stays as it is.
    config.weights = str(folder / "random.keras")
    size, batch_size, strategy = split.images.shape[1], config.global_batch_size, tf.distribute.get_strategy()
    architecture = model_lib.Architecture(config.backbone, config.pooling, tuple(config.head_widths), config.dropout)
    model_lib.build(architecture, size).save(config.weights)
    model, _, run = assemble.assemble(config, strategy, {"image_size": size}, split, split, str(folder))
    augmentation = Augmentation(**config.augmentation)

    def batches(epoch: int, seed: int) -> tf.data.Dataset:
        return input_pipeline.batches(
            split, strategy, batch_size, epoch=epoch, seed=seed, augmentation=augmentation, shuffle=True
        )

    def whole_loop(number: int) -> int:
        run.loop.train_epoch(split, State(epoch=number), batch_size, augmentation=augmentation, seed=number)
        return len(split)

    step, resident = _bare_step(model, config, run), next(iter(batches(0, 0)))

    def bare(unused_number: int) -> int:
        for _ in range(len(split) // batch_size):
            loss = step(resident)
        loss.numpy()
        return len(split)

    plain, files = _plain_keras(split, config, folder)

    def keras_script(unused_number: int) -> int:
        plain.fit(files, verbose=0)
        return len(split)

    def input_alone(number: int) -> int:
        for epoch in range(INPUT_EPOCHS):
            for batch in batches(epoch, number):
                last = batch["image"]
        last.numpy()
        return INPUT_EPOCHS * len(split)

    return {LOOP: whole_loop, BARE: bare, KERAS: keras_script, INPUT: input_alone}


def _bare_step(
    model: keras.Model, config: ml_collections.ConfigDict, run: Run
) -> Callable[[Mapping[str, tf.Tensor]], tf.Tensor]:
    """Forward, backward and update, compiled, and nothing else."""
    (phase,) = optimization.phases(model, config, 1, pretrained=True)
    variables = list(phase.variables)

    @tf.function
    def step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logit = tf.squeeze(model(batch["image"], training=True)[model_lib.LOGIT], -1)
            loss = phase.optimizer.scale_loss(tf.reduce_mean(run.objective(batch["label"], logit)))
        phase.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    return step


def _plain_keras(split: Split, config: ml_collections.ConfigDict, folder: pathlib.Path) -> tuple[keras.Model, tf.data.Dataset]:
    """What Keras's own guides would have one write: files in a folder for each class, random layers, `compile`, `fit`."""
    for index, label in enumerate(split.labels):
        path = folder / "files" / ("positive" if label else "negative") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), split.images[index])
    size, wanted = split.images.shape[1], config.augmentation
    files = keras.utils.image_dataset_from_directory(
        folder / "files", color_mode="grayscale", image_size=(size, size), batch_size=config.global_batch_size, verbose=False
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
        lambda image, label: (tf.cast(change(image, training=True), tf.uint8), label), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)
    architecture = model_lib.Architecture(config.backbone, config.pooling, tuple(config.head_widths), config.dropout)
    network = model_lib.build(architecture, size)
    model_lib.freeze(network, config.unfreeze_layers, train_batch_norm=False)
    model = keras.Model(network.input, network.output[model_lib.LOGIT])
    model.compile(
        keras.optimizers.AdamW(config.learning_rate), keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model, augmented


def _table(rates: Mapping[str, list[float]], split: Split, config: ml_collections.ConfigDict) -> str:
    rows = []
    for name, found in rates.items():
        ratios = [ours / other for ours, other in zip(rates[LOOP], found, strict=True)]
        ratio = "" if name == LOOP else f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        rows.append([name, f"{statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f})", ratio])
    size, rounds = split.images.shape[1], len(rates[LOOP])
    about = (
        f"{config.backbone} at {size} px, batches of {config.global_batch_size}, {config.precision}, the last {config.unfreeze_layers} of the"
        f" layers learning; {rounds} rounds of {len(split) // config.global_batch_size} steps on real radiographs; {_machine()};"
        f" peak memory of it all {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB."
    )
    return f"{about}\n\n{markdown(['what', 'images/s, median (range)', 'the loop over it, median (range)'], rows)}"


def _machine() -> str:
    """Processor and devices, as this system names them."""
    names = [
        line.partition(":")[2].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join([f"{len(names)} x {names[0] if names else platform.machine()}", *gpus])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="where humerus-prepare wrote")
    parser.add_argument("--backbone", default="densenet121")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
