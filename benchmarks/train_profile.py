r"""Profile a training step by operation, for each backbone and precision.

    python -m benchmarks.train_profile --backbones=densenet121,xception \
        --precisions=float32,mixed_bfloat16 --size=224

Weights and images are random, the layers that learn are those of the recipe `humerus`. Each step
runs in a process of its own. Writes two tables into benchmarks/README.md: the operations of the
first two backbones, and the speed of all.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import tables

BATCH_SIZE, STEPS, MOST = 16, 12, 8
TOTAL, CLOCK = "the step, processor time", "the step, by the clock"
_OWN = ("_Mkl", "_Fused", "Cast", "Relu", "Mul", "Add", "Concat", "Slice", "Assign", "Sub")
"""How the operations' names begin that are worth a row."""


def profile(backbone: str, precision: str, size: int) -> dict[str, float]:
    """Return the seconds of each kind of operation in one step, and of the whole step: the least
    processor time, and the median by the clock without the first two, which compile.
    """
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

    spent, waited = [], []
    for _ in range(STEPS):
        started, began = time.process_time(), time.perf_counter()
        step().numpy()
        spent.append(time.process_time() - started)
        waited.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step().numpy()
        seconds = read_operations(pathlib.Path(folder))
    return {TOTAL: min(spent), CLOCK: statistics.median(waited[2:])} | seconds


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
    largest = sorted(kinds.keys() - {TOTAL, CLOCK}, key=lambda kind: -kinds[kind])[:MOST]
    shown = [TOTAL, CLOCK, *largest]
    rows = [[kind, *(f"{each.get(kind, 0.0):.2f}" for each in found.values())] for kind in shown]
    return tables.markdown(["seconds", *found], rows)


def tabulate_speed(
    found: dict[str, dict[str, dict[str, float]]], backbones: list[str], precisions: list[str]
) -> str:
    """Return the table of steps a second: a row for each backbone, a column for each precision.

    Args:
      found: what `profile` returns, by backbone and precision.
    """
    first = precisions[0]
    rows = []
    for backbone in backbones:
        clock = {precision: found[backbone][precision][CLOCK] for precision in precisions}
        cells = [f"{1 / seconds:.2f}" for seconds in clock.values()]
        gains = [f"{clock[first] / clock[precision]:.2f}" for precision in precisions[1:]]
        rows.append([backbone, *cells, *gains])
    gains = [f"{precision} over {first}" for precision in precisions[1:]]
    return tables.markdown(["steps a second", *precisions, *gains], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backbones",
        default="densenet121,xception,mobilenetv2",
        help="comma-separated",
    )
    parser.add_argument("--precisions", default="float32,mixed_bfloat16", help="comma-separated")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    options = parser.parse_args()
    backbones, precisions = options.backbones.split(","), options.precisions.split(",")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for backbone in backbones:
        for precision in precisions:
            spawn = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, spawn) as alone:
                done = alone.submit(profile, backbone, precision, options.size)
                found.setdefault(backbone, {})[precision] = done.result()
    columns = {f"{b}, {p}": found[b][p] for b in backbones[:2] for p in precisions}
    tables.replace_table("train_profile", tabulate(columns))
    tables.replace_table("train_speed", tabulate_speed(found, backbones, precisions))


if __name__ == "__main__":
    main()
