"""Measure memory and time of training over the number of images, on a disk and in a bucket.

    python -m benchmarks.train_scale --work=runs/train_scale

Images are generated, 320 px; the network is the tests' tiny one, so that reading, augmenting and
bookkeeping show. Memory is the peak of the process, start to end. The bucket is an emulator on
loopback that takes 50 ms longer for each request.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np

from benchmarks import tables
from benchmarks.score_memory import peak_of_tree
from tests.support import bucket_server
from tests.support.commands import ROOT

SIZE, DELAY = 320, 0.05
PROGRAM = "import sys; from trainer import main; sys.exit(getattr(main, sys.argv.pop(1))())"
READ = """
import sys, time
from trainer import input_pipeline
started = time.monotonic()
names = ("train", "validation", "test")
images = sum(len(prepared_split.load_split(sys.argv[1], name)) for name in names)
print(images / (time.monotonic() - started))
"""
RECIPE = [
    "--config=tests/support/small_recipe.py",
    "--config.global_batch_size=64",
    "--config.epochs=1",
]
RECIPE += ["--config.checkpoint_every_steps=200"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/train_scale"))
    parser.add_argument("--counts", type=int, nargs="+", default=[4_000, 40_000])
    parser.add_argument("--only_bucket", action="store_true", help="the second table alone")
    options = parser.parse_args()
    work = options.work.resolve()
    if not options.only_bucket:
        tables.replace_table("train_scale", _scale(work, options.counts))
    tables.replace_table("train_bucket", _bucket(work, options.counts[0]))


def _scale(work: pathlib.Path, counts: list[int]) -> str:
    """Memory and time over the number of images."""
    rows = []
    for count in counts:
        data_dir = _prepared(work, count)
        for cache in ("memory", "disk"):
            workdir = work / f"run-{count}-{cache}-{os.getpid()}"
            flags = [f"--data_dir={data_dir}", f"--workdir={workdir}", f"--config.cache={cache}"]
            peak, seconds = peak_of_tree([sys.executable, "-c", PROGRAM, "train", *RECIPE, *flags])
            rate = _rate((workdir / "history.csv").read_text())
            rows.append(
                [
                    f"{count:,}, cache={cache}",
                    f"{peak / 2**30:.1f}",
                    f"{count / rate:.0f}",
                    f"{rate:.0f}",
                    f"{seconds:.0f}",
                ]
            )
    header = [
        "images",
        "peak memory, GiB",
        "seconds of an epoch",
        "images/s in it",
        "seconds, start to end",
    ]
    return tables.markdown(header, rows)


def _prepared(work: pathlib.Path, count: int) -> pathlib.Path:
    """`count` images to train on, and a few to validate and to test on."""
    source, data_dir = work / f"source{count}", work / f"data{count}"
    if data_dir.exists():
        return data_dir
    random = np.random.default_rng(0)
    source.mkdir(parents=True, exist_ok=True)
    with (source / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for index in range(count + 200):
            pixels = cv2.resize(
                random.integers(0, 256, (8, 8), dtype=np.uint8),
                (SIZE, SIZE),
                interpolation=cv2.INTER_CUBIC,
            )
            cv2.imwrite(str(source / f"{index}.png"), pixels)
            split = "train" if index < count else ("validation", "test")[index % 4 // 2]
            writer.writerow([f"{index}.png", ("negative", "positive")[index % 2], split])
    flags = [
        f"--source={source / 'manifest.csv'}",
        "--layout=manifest",
        f"--data_dir={data_dir}",
        f"--image_size={SIZE}",
    ]
    subprocess.run([sys.executable, "-c", PROGRAM, "prepare", *flags], check=True, cwd=ROOT)
    return data_dir


def _rate(history: str) -> float:
    """Images per second of the last epoch, without a first call, which compiles."""
    return float(list(csv.DictReader(history.splitlines()))[-1]["images_per_second"])


def _bucket(work: pathlib.Path, count: int) -> str:
    """Compare the same training from and to a disk and a bucket, in turn."""
    data_dir = _prepared(work, count)
    epochs = ["--config.epochs=2"]
    commands: dict[str, list[float]] = {"disk": [], "bucket": []}
    reading: dict[str, list[float]] = {"disk": [], "bucket": []}
    training: dict[str, list[float]] = {"disk": [], "bucket": []}
    keys = work / f"keys-{os.getpid()}"
    keys.mkdir()
    with bucket_server.running(keys) as server:
        uri, environment = (
            server.make_bucket("training"),
            {**os.environ, **server.tensorflow_environment},
        )
        for path in data_dir.rglob("*"):
            if path.is_file():
                server.put("training", f"data/{path.relative_to(data_dir)}", path.read_bytes())
        server.delay = DELAY
        for number in range(3):
            places = {
                "disk": (str(data_dir), str(work / f"disk-{os.getpid()}-{number}")),
                "bucket": (f"{uri}/data", f"{uri}/run{number}"),
            }
            for name, (data, workdir) in places.items():
                started = time.monotonic()
                flags = [f"--data_dir={data}", f"--workdir={workdir}", *RECIPE, *epochs]
                subprocess.run(
                    [sys.executable, "-c", PROGRAM, "train", *flags],
                    check=True,
                    cwd=ROOT,
                    env=environment,
                )
                commands[name].append(time.monotonic() - started)
                written = server.objects("training", f"run{number}/history.csv").values()
                local = pathlib.Path(workdir) / "history.csv"
                training[name].append(
                    _rate(local.read_text() if name == "disk" else next(iter(written)).decode())
                )
                read = subprocess.run(
                    [sys.executable, "-c", READ, data],
                    check=True,
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                )
                reading[name].append(float(read.stdout))

    def told(found: dict[str, list[float]], name: str) -> str:
        """Median, and what it is of that on a disk."""
        ours, disk = float(np.median(found[name])), float(np.median(found["disk"]))
        return f"{ours:.0f}" if name == "disk" else f"{ours:.0f} ({ours / disk:.2f} times)"

    rows = [
        [name, *(told(found, name) for found in (commands, reading, training))] for name in commands
    ]
    about = (
        f"{count:,} images, {epochs[0].partition('=')[2]} epochs, medians of 3 whole"
        " commands, by turns. Images are read and decoded once, at"
        " the start; the last epoch has them in memory, and writes checkpoints."
    )
    header = [
        "data and run on",
        "seconds, start to end",
        "images/s read",
        "images/s in the last epoch",
    ]
    return f"{about}\n\n{tables.markdown(header, rows)}"


if __name__ == "__main__":
    main()
