r"""Compare the speed, memory and cost of `humerus-score` with simpler scripts on the same files.

    make bench
    python -m benchmarks.score --source=radiographs --images=200,2000,20000 --cores=1,2 \
        --sizes=224,320
    python -m benchmarks.score --model=runs/first/artifact --source=radiographs
    python -m benchmarks.score --train_on=data --weights=xception_notop.weights.h5 \
        --source=radiographs --images=2000 --slow=2000 --table=score_trained \
        --only='auto takes$|float32$|Beam pipeline, labels'

Cases and numbers of images run in turn, round after round, and the table has medians. On a shared
machine processor time says more than the clock, so it has both, and ratios of the runs of one
round; the cost of a million images is that of the processor time. Writes its table and plot into
benchmarks/README.md.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np
import psutil
import scipy.stats

from benchmarks import tables
from trainer import artifact, radiograph

DOLLARS_PER_VCPU_HOUR = 0.04
_LARGE = 5_000
"""Larger folders take minutes, and are for the fastest alone."""
SCORE = [sys.executable, "-c", "from batch_inference.main import score; raise SystemExit(score())"]
_TRAIN = [sys.executable, "-c", "from trainer.main import train; raise SystemExit(train())"]
_BASELINE = [sys.executable, "-m", "benchmarks.baselines"]
_PLOT = pathlib.Path(__file__).with_name("score.svg")


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table: a command that takes --input, --model and --output, at most how many
    images to give it, and how often.
    """

    name: str
    command: tuple[str, ...]
    most: int = _LARGE
    rounds: int = 1_000


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run took: seconds by the clock, of processor time, and to the first result; the peak
    of its memory in bytes.
    """

    images: int
    seconds: float
    cpu: float
    first: float
    peak: int


def cases(slow: int) -> list[Case]:
    """All that is compared; what computes in 32 bits gets at most `slow` images, and only the
    fastest of ours more than `_LARGE`.
    """

    def ours(name: str, *flags: str, most: int = _LARGE) -> Case:
        return Case(f"humerus-score, {name}", (*SCORE, "--overwrite", *flags), most)

    def bare(choice: str, most: int = _LARGE) -> Case:
        return Case(
            f"the network alone, {choice}", (*_BASELINE, "engine", f"--engine={choice}"), most
        )

    return [
        ours("the engine that auto takes"),
        ours("the engine that auto takes, labels only", "--cam=none"),
        ours("int8", "--engine=openvino", "--precision=int8", most=1_000_000_000),
        ours("int8, labels only", "--engine=openvino", "--precision=int8", "--cam=none"),
        bare("openvino/int8"),
        ours("bfloat16", "--engine=openvino", "--precision=bfloat16"),
        bare("openvino/bfloat16"),
        ours("float32", "--engine=openvino", "--precision=float32", most=slow),
        ours("TensorFlow", "--engine=tensorflow", most=slow),
        Case("obvious Beam pipeline, labels only", (*_BASELINE, "labels"), max(slow, 2_000)),
        Case("obvious Beam pipeline, Grad-CAM", (*_BASELINE, "obvious"), slow),
        Case("Ray Data with TensorFlow, labels only", (*_BASELINE, "ray"), max(slow, 2_000)),
        Case("Ray Data with OpenVINO, labels only", (*_BASELINE, "ray_openvino")),
        Case("loop over tf-explain's Grad-CAM", (*_BASELINE, "loop"), slow, rounds=1),
    ]


def generate(source: pathlib.Path | None, folder: pathlib.Path, count: int) -> None:
    """`count` different 8-bit PNG files of at most 512 px, as MURA's: radiographs of `source`, or
    simulated ones, again and again.
    """
    if folder.is_dir() and sum(1 for path in folder.rglob("*.png")) == count:
        return
    shutil.rmtree(folder, ignore_errors=True)
    drawn = list(pictures(source))
    for index in range(count):
        pixels = drawn[index % len(drawn)].copy()
        pixels[0, :32] = [255 * (index >> bit & 1) for bit in range(32)]
        path = (
            folder
            / f"patient{index // 4:05d}"
            / f"study{index // 2 % 2 + 1}_positive"
            / f"image{index}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)


def pictures(source: pathlib.Path | None, most: int = 120):
    if source is None:
        from trainer.phantom.render import render

        for patient in range(most):
            yield _at_most_512(render(0, patient, 0, 0).pixels)
        return
    found = 0
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        try:
            pixels = radiograph.read(path.read_bytes()).pixels
        except radiograph.RadiographError:
            continue
        yield _at_most_512(pixels)
        found += 1
        if found == most:
            return


def _at_most_512(pixels: np.ndarray) -> np.ndarray:
    scale = min(1.0, 512 / max(pixels.shape))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def measure(
    case: Case,
    folder: pathlib.Path,
    count: int,
    model: pathlib.Path,
    output: pathlib.Path,
    cores: int,
) -> Run:
    """Run one case in a process of its own, on a given number of cores."""
    shutil.rmtree(output, ignore_errors=True)
    command = [*case.command, f"--input={folder}", f"--model={model}", f"--output={output}"]
    before, start = os.times(), time.monotonic()
    process = psutil.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    first, peak = 0.0, 0
    seen: dict[int, float] = {}
    while process.poll() is None:
        try:
            tree = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in tree))
            for one in tree:
                spent = one.cpu_times()
                seen[one.pid] = spent.user + spent.system
        except psutil.NoSuchProcess:
            continue
        first = first or (time.monotonic() - start if _has_result(output) else 0.0)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{case.name} failed: {process.stderr.read().decode()[-2000:]}")
    seconds, after = time.monotonic() - start, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    # Nobody waits for the processes that Ray starts, so that the system doesn't count their time.
    cpu = max(cpu, sum(seen.values()))
    if (output / "spent.json").exists():
        spent = json.loads((output / "spent.json").read_text())
        return Run(spent["images"], spent["seconds"], spent["cpu"], 0.0, peak)
    return Run(count, seconds, cpu, first or seconds, peak)


def _has_result(output: pathlib.Path) -> bool:
    """Whether a picture or a row is there."""
    return any(
        next(output.glob(pattern), None)
        for pattern in ("cams/*", "journal/*", "ray/*", "*.jpg", "predictions*")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/bench"))
    parser.add_argument(
        "--source",
        type=pathlib.Path,
        help="radiographs to make the files from; simulated ones otherwise",
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        help="artifact to score with, trained and verified; by default one of random weights is"
        " made for each of --sizes",
    )
    parser.add_argument(
        "--train_on",
        help="folder that humerus-prepare wrote; an artifact is trained there and scored with",
    )
    parser.add_argument("--backbone", default="xception", help="of the artifact to train")
    parser.add_argument("--weights", default="imagenet", help="that training starts from")
    parser.add_argument("--epochs", type=int, default=8, help="of that training")
    parser.add_argument("--images", default="200,2000", help="comma-separated numbers of files")
    parser.add_argument(
        "--cores", default=str(len(os.sched_getaffinity(0))), help="comma-separated core counts"
    )
    parser.add_argument("--sizes", default="224", help="comma-separated sides of the square")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow", type=int, default=200, help="at most so many images for what computes in 32 bits"
    )
    parser.add_argument(
        "--table",
        default="score",
        help="which table of benchmarks/README.md to write; the plot belongs to `score`",
    )
    parser.add_argument(
        "--only", default="", help="regular expression that the names of the cases contain"
    )
    options = parser.parse_args()
    if options.train_on:
        options.model = _train(options)
    chosen = [case for case in cases(options.slow) if re.search(options.only, case.name)]
    rows, plotted = [], {}
    sizes = (
        [artifact.load(options.model).image_size]
        if options.model
        else [int(size) for size in options.sizes.split(",")]
    )
    for size in sizes:
        model = options.model or _artifact(
            options.work / f"densenet121-{size}", size, options.source
        )
        for cores in map(int, options.cores.split(",")):
            counts = sorted(map(int, options.images.split(",")))
            for count in counts:
                generate(options.source, options.work / f"in{count}", count)
            fitting = [(count, case) for count in counts for case in chosen if count <= case.most]
            runs: dict[tuple[int, str], list[Run]] = {
                (count, case.name): [] for count, case in fitting
            }
            for number in range(options.rounds):
                for count, case in fitting:
                    if number < case.rounds:
                        found = measure(
                            case,
                            options.work / f"in{count}",
                            count,
                            model,
                            options.work / "out",
                            cores,
                        )
                        runs[count, case.name].append(found)
                        print(case.name, size, cores, found, flush=True)
            few: dict[str, list[Run]] = {}
            for (count, name), of_case in runs.items():
                few.setdefault(name, of_case)
                rows.append(
                    _row(name, size, cores, of_case, few[name], runs[count, chosen[0].name])
                )
                # The last, and so the largest, number of images counts, in which the start weighs
                # least.
                plotted[name] = (
                    count,
                    statistics.median(1000 * run.cpu / run.images for run in of_case),
                )
    header = [
        "",
        "px",
        "cores",
        "images",
        "images/s",
        "time over the first row's",
        "steady state",
        "first result, s",
        "CPU ms/image",
        "peak, MiB",
        "$ per million",
    ]
    machine = (
        f"{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f} in the last quarter of an hour"
    )
    text = f"{machine}\n\n{tables.markdown(header, rows)}"
    if options.table == "score":
        _plot(plotted)
        text += f"\n\n![CPU time per image]({_PLOT.name})"
    tables.replace_table(options.table, text)


def _row(
    name: str, size: int, cores: int, found: list[Run], few: list[Run], first: list[Run]
) -> list[str]:
    """Return a row of the table.

    Args:
      found: the runs of this row.
      few: the runs of the same case with the fewest images, which are mostly start-up.
      first: the runs of the first case with as many images as `found`, in the same rounds.
    """

    def median(of, runs: list[Run] = found) -> float:
        return statistics.median(of(run) for run in runs)

    alone = name.startswith("the network")
    beyond = ""
    if found[0].images > few[0].images and not alone:
        more_seconds = median(lambda run: run.seconds) - median(lambda run: run.seconds, few)
        beyond = f"{(found[0].images - few[0].images) / more_seconds:.1f}"
    cpu = median(lambda run: run.cpu / run.images)
    ratios = [run.seconds / other.seconds for run, other in zip(found, first, strict=False)]
    return [
        name,
        str(size),
        str(cores),
        f"{found[0].images:,}",
        f"{median(lambda run: run.images / run.seconds):.1f}",
        "" if alone or found is first else _format_ratios(ratios),
        beyond,
        "" if alone else f"{median(lambda run: run.first):.1f}",
        f"{1000 * cpu:.1f}",
        f"{median(lambda run: run.peak) / 2**20:.0f}",
        f"{1e6 * cpu / 3600 * DOLLARS_PER_VCPU_HOUR:.2f}",
    ]


def _format_ratios(ratios: list[float]) -> str:
    """Return the geometric mean of the ratios of paired runs, with Student's 95 % interval."""
    logs = np.log(ratios)
    mean = math.exp(logs.mean())
    if len(ratios) < 3:  # the interval of two would be wider than any use of it
        return f"{mean:.2f}"
    half = scipy.stats.t.ppf(0.975, len(logs) - 1) * scipy.stats.sem(logs)
    return f"{mean:.2f} ({mean * math.exp(-half):.2f} to {mean * math.exp(half):.2f})"


def _train(options: argparse.Namespace) -> pathlib.Path:
    """Train an artifact on real radiographs, if it is not there; export measures its engines."""
    workdir = options.work / f"{options.backbone}-trained"
    if not (workdir / "artifact" / "model.json").exists():
        subprocess.run(
            [
                *_TRAIN,
                f"--data_dir={options.train_on}",
                f"--workdir={workdir}",
                f"--config.backbone={options.backbone}",
                f"--config.weights={options.weights}",
                f"--config.epochs={options.epochs}",
                "--config.test_time_flips=none",  # the baselines score each image once
            ],
            check=True,
        )
    return workdir / "artifact"


def _artifact(folder: pathlib.Path, size: int, source: pathlib.Path | None) -> pathlib.Path:
    """DenseNet121 of random weights with statistics of its own activations, exported and with its
    network in int8.
    """
    if not (folder / "model.json").exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.random_artifact",
                folder,
                str(size),
                *([source] if source else []),
            ],
            check=True,
        )
    return folder


def _plot(milliseconds: dict[str, tuple[int, float]]) -> None:
    """By name: how many images were scored, and processor time of one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(milliseconds) + 1), layout="constrained")
    axes = figure.add_subplot()
    labels = [f"{name} ({count:,} images)" for name, (count, _) in milliseconds.items()][::-1]
    colours = ["#777" if "alone" in label else "#2a788e" for label in labels]
    bars = axes.barh(
        labels, [time_taken for _, time_taken in milliseconds.values()][::-1], color=colours
    )
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("processor milliseconds per image, start included")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(_PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
