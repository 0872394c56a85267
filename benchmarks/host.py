r"""Measure what scoring costs beside the network: images/s by number of cores, and where time goes.

    python -m benchmarks.host --source=radiographs --images=5000 --cores=1,2

The network is the tests' tiny one at 224 px, which costs next to nothing; files are 8-bit PNG of at
most 512 px, as MURA's. Numbers of cores run in turn, round after round. Then each part of the work
is timed by itself, in one thread. Writes its table and plot into benchmarks/README.md.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import score, tables
from tests.support import tiny_artifact
from trainer import machine, radiograph
from trainer.drawing import overlay
from trainer.drawing.legend import UNIT, Legend
from trainer.workers.file_results import Wanted, digest
from trainer.workers.imaging import Imaging
from trainer.workers.pool import Pool

SIDE = 224
_PLOT = pathlib.Path(__file__).with_name("host.svg")
_TIMED_FILES = 200
_FLAGS = ("--overwrite", "--engine=openvino", "--precision=float32")
_OUTPUTS = {"overlays": (), "labels only": ("--cam=none",)}

Runs = dict[tuple[str, int], list[score.Run]]
"""Runs by what they write and by cores."""


def main() -> None:
    options = _options()
    numbers = [int(number) for number in options.cores.split(",")]
    if max(numbers) > machine.cores():
        raise SystemExit(f"--cores={options.cores}: this machine has {machine.cores()}")
    files, model = options.work / "in", options.work / "model"
    score.generate(options.source, files, options.images)
    tiny_artifact.make(model, SIDE)
    runs: Runs = {}
    for _ in range(options.rounds):
        for name, flags in _OUTPUTS.items():
            case = score.Case(name, (*score.SCORE, *_FLAGS, *flags))
            for cores in numbers:
                output = options.work / "out"
                found = score.measure(case, files, options.images, model, output, cores)
                print(name, cores, found, flush=True)
                runs.setdefault((name, cores), []).append(found)
    parts = time_parts(sorted(files.rglob("*.png"))[:_TIMED_FILES])
    tables.replace_table("host", _text(runs, options.images, parts))
    _plot(runs)


def time_parts(files: Sequence[pathlib.Path]) -> dict[str, float]:
    """Return the milliseconds that each part of the work takes for an image, timed by itself."""
    contents = [path.read_bytes() for path in files]
    pictures = [radiograph.read(content).pixels for content in contents]
    random = np.random.default_rng(0)
    maps = [random.normal(0, 0.3, (7, 7)).astype(np.float32) for _ in files]
    pairs = list(zip(pictures, maps, strict=True))
    drawn = [overlay.draw(*pair, SIDE, 0.5, "overlay") for pair in pairs]
    parts = {
        "reading and hashing the file": _milliseconds(lambda path: digest(str(path)), files),
        "decoding the PNG": _milliseconds(radiograph.read, contents),
        "letterbox": _milliseconds(lambda pixels: radiograph.letterbox(pixels, SIDE), pictures),
        "drawing the overlay": _milliseconds(
            lambda pair: overlay.draw(*pair, SIDE, 0.5, "overlay"), pairs
        ),
        "encoding the JPEG": _milliseconds(lambda pixels: overlay.encode(pixels, "jpeg"), drawn),
    }
    imaging, folder = Imaging(Pool(1)), tempfile.TemporaryDirectory()
    drawing = Legend(0.5, UNIT, "Grad-CAM", "", 7, 7, SIDE), False, "jpeg"
    groups = [range(start, start + 4) for start in range(0, len(files), 4)]
    whole = _milliseconds(
        lambda group: imaging.decode_many(
            [str(files[index]) for index in group], Wanted(SIDE, picture=True)
        ),
        groups,
    )
    whole += _milliseconds(
        lambda group: imaging.draw_many(
            [pairs[index] for index in group],
            [f"{folder.name}/{index}.jpg" for index in group],
            *drawing,
        ),
        groups,
    )
    parts["passing four to a worker process and back, writing"] = whole / 4 - sum(parts.values())
    return parts


def _milliseconds(work: Callable[..., object], items: Sequence, rounds: int = 5) -> float:
    """Return the median over rounds of the mean time of an item."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for item in items:
            work(item)
        found.append(1000 * (time.perf_counter() - start) / len(items))
    return statistics.median(found)


def _text(runs: Runs, images: int, parts: dict[str, float]) -> str:
    """Return both tables, as Markdown."""
    one = min(cores for _, cores in runs)
    rows = []
    for (name, cores), found in runs.items():
        ratios = [
            run.images / run.seconds / (alone.images / alone.seconds)
            for run, alone in zip(found, runs[name, one], strict=True)
        ]
        rows.append(
            [
                name,
                str(cores),
                f"{statistics.median(run.images / run.seconds for run in found):.0f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{statistics.median(1000 * run.cpu / run.images for run in found):.2f}",
                f"{statistics.median(run.peak for run in found) / 2**20:.0f}",
            ]
        )
    whole = statistics.median(
        1000 * run.cpu / run.images for run in runs[next(iter(_OUTPUTS)), one]
    )
    rest = whole - sum(parts.values())
    times = [[name, f"{value:.2f}"] for name, value in parts.items()]
    times += [["start, Beam, rows, journal", f"{rest:.2f}"], ["all", f"{whole:.2f}"]]
    header = ["", "cores", "images/s", "times one core", "CPU ms/image", "peak, MiB"]
    return "\n\n".join(
        [
            f"{images:,} files; {os.cpu_count()} x {machine.processor()}; medians of"
            f" {len(next(iter(runs.values())))} rounds, start-up included.",
            tables.markdown(header, rows),
            tables.markdown(["part of the work, one core", "ms/image"], times),
            f"![Images per second by cores]({_PLOT.name})",
        ]
    )


def _plot(runs: Runs) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(_OUTPUTS, ("#2a788e", "#7a5195"), strict=True):
        cores = [number for which, number in runs if which == name]
        speeds = [
            statistics.median(run.images / run.seconds for run in runs[name, number])
            for number in cores
        ]
        axes.plot(cores, speeds, marker="o", color=colour, label=name)
        linear = [speeds[0] * number / cores[0] for number in cores]
        axes.plot(cores, linear, linestyle=":", color=colour)
    axes.set_xlabel("cores (dotted: in proportion to cores)")
    axes.set_ylabel("images/s")
    axes.set_ylim(0)
    axes.set_xticks(cores)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    figure.savefig(_PLOT, metadata={"Date": None})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/host"))
    parser.add_argument("--source", type=pathlib.Path, help="radiographs; simulated otherwise")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--cores", default="1,2", help="comma-separated numbers of cores")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
