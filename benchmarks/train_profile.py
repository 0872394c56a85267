r"""Profile a training step by operation, for each backbone and precision.

    python -m benchmarks.train_profile --backbones=densenet121,xception \
        --precisions=float32,mixed_bfloat16 --size=224

Weights and images are random, the layers that learn are those of the recipe `humerus`. Each step
runs in a process of its own. Writes its table into benchmarks/README.md.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import pathlib
import tempfile
import time

import numpy as np

from benchmarks import tables

BATCH_SIZE, STEPS, MOST = 16, 5, 8
TOTAL = "the step, processor time"
_OWN = ("_Mkl", "_Fused", "Cast", "Relu", "Mul", "Add", "Concat", "Slice", "Assign", "Sub")
"""How the operations' names begin that are worth a row."""


def profile(backbone: str, precision: str, size: int) -> dict[str, float]:
    """Return the seconds of each kind of operation in one step, and of the whole step."""
    import keras
    import tensorflow as tf

    from trainer.configs import humerus
    from trainer.network import model as model_lib
    from trainer.training import optimization
    from trainer.training.training_step import Objective

    keras.config.set_dtype_policy(precision)
    config = humerus.get_config()
    config.update({"backbone": backbone, "head_epochs": 0})
    architecture = model_lib.Architecture(backbone, config.pooling, tuple(config.head_widths))
    model = model_lib.build(architecture, size)
    (phase,) = optimization.build_phases(model, config, 1, pretrained=True)
    variables, objective = list(phase.variables), Objective(config.label_smoothing, (1.0, 1.0))
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 1), dtype=np.uint8)
    images, labels = tf.constant(pixels), tf.constant(np.arange(BATCH_SIZE) % 2, tf.float32)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logit = tf.squeeze(model(images, training=True)[model_lib.LOGIT], -1)
            loss = phase.optimizer.scale_loss(tf.reduce_mean(objective(labels, logit)))
        phase.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    spent = []
    for _ in range(STEPS):
        started = time.process_time()
        step().numpy()
        spent.append(time.process_time() - started)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step().numpy()
        seconds = read_operations(pathlib.Path(folder))
    return {TOTAL: min(spent)} | seconds


def read_operations(folder: pathlib.Path) -> dict[str, float]:
    """Return the seconds of each kind of operation that a profile of TensorFlow holds."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                kind = plane.event_metadata[event.metadata_id].name.rpartition(":")[2]
                if kind.startswith(_OWN):
                    seconds[kind.removeprefix("_MklNative")] += event.duration_ps / 1e12
    return seconds


def tabulate(found: dict[str, dict[str, float]]) -> str:
    """Return the table: a row for each kind of operation, a column for each of `found`."""
    kinds = {
        kind: max(each.get(kind, 0.0) for each in found.values())
        for each in found.values()
        for kind in each
    }
    shown = [TOTAL, *sorted(kinds.keys() - {TOTAL}, key=lambda kind: -kinds[kind])[:MOST]]
    rows = [[kind, *(f"{each.get(kind, 0.0):.2f}" for each in found.values())] for kind in shown]
    return tables.markdown(["seconds", *found], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", default="densenet121,xception", help="comma-separated")
    parser.add_argument("--precisions", default="float32,mixed_bfloat16", help="comma-separated")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    options = parser.parse_args()
    found = {}
    for backbone in options.backbones.split(","):
        for precision in options.precisions.split(","):
            spawn = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, spawn) as alone:
                done = alone.submit(profile, backbone, precision, options.size)
                found[f"{backbone}, {precision}"] = done.result()
    tables.replace_table("train_profile", tabulate(found))


if __name__ == "__main__":
    main()
