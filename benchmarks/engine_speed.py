"""Compare the speed of the engines on one artifact, the network alone, and how far they agree.

    python -m benchmarks.random_artifact runs/bench/artifact 224
    python -m benchmarks.engine_speed runs/bench/artifact

Engines take turns, a batch each, so that what else the machine does slows all of them alike.
Processor time counts all threads of this process and hardly depends on that at all. The table goes
to benchmarks/README.md.
"""

import pathlib
import sys
import time

import numpy as np

from benchmarks import tables
from trainer import artifact, machine
from trainer.inference import engines
from trainer.publishing import onnx_export

ROUNDS = 12


def main(directory: str) -> None:
    model = pathlib.Path(directory)
    described = artifact.load(model)
    if artifact.ONNX_NETWORK not in described.files:
        onnx_export.export(model, model)
        described = artifact.amend(model, described)
    shape = (engines.BATCH_SIZE, described.image_size, described.image_size, 1)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    loaded = {
        choice: engines.load(model, described, choice, engines.BATCH_SIZE)
        for choice in engines.CHOICES
        if engines.can_run(choice)
        and engines.NETWORK_FILES.get(str(choice), artifact.MODEL_JSON)
        in {*described.files, artifact.MODEL_JSON}
    }
    expected = loaded[engines.REFERENCE].run(images)
    spent: dict[engines.Choice, list[tuple[float, float]]] = {choice: [] for choice in loaded}
    for _ in range(ROUNDS):
        for choice, engine in loaded.items():
            cpu, wall = time.process_time(), time.perf_counter()
            engine.run(images)
            spent[choice].append((time.process_time() - cpu, time.perf_counter() - wall))
    rows = []
    for choice, engine in loaded.items():
        outputs = engine.run(images)
        cpu, wall = np.median(spent[choice], axis=0) / engines.BATCH_SIZE
        differences = [np.abs(outputs[name] - expected[name]).max() for name in ("logit", "cam")]
        figures = [f"{cpu * 1000:.1f}", f"{1 / wall:.0f}"]
        rows.append([str(choice), *figures, *(f"{value:.0e}" for value in differences)])
    header = ["engine", "processor time, ms an image", "images/s"]
    header += ["logit differs by at most", "map differs by at most"]
    spread = [np.ptp(expected[name]) for name in ("logit", "cam")]
    tables.replace_table(
        "engine speed",
        tables.markdown(header, rows)
        + f"\n\n{described.architecture['backbone']}, {shape[1]} px, batches of {shape[0]}, "
        f"medians of {ROUNDS} in turns, on {machine.processor()}. The logits span {spread[0]:.2f} "
        f"and the cells of the maps {spread[1]:.2f}.",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
