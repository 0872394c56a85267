"""Measure the peak memory of `humerus-score` for 5,000 and for 50,000 small images.

    python -m benchmarks.score_memory --work=runs/score_memory

Images are generated, 44 x 60 px; the network is the tests' tiny one, so that what is measured is
everything but the network.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import psutil

from benchmarks import tables
from tests.support import tiny_artifact

COUNTS = (5_000, 50_000)
_PROGRAM = "from batch_inference.main import score; raise SystemExit(score())"


def generate(folder: pathlib.Path, count: int) -> None:
    """Write `count` different images, two to a study, unless they exist."""
    random = np.random.default_rng(0)
    for index in range(count):
        path = (
            folder
            / f"patient{index // 4:05d}"
            / f"study{index // 2 % 2 + 1}_positive"
            / f"image{index}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(
            random.integers(0, 256, (5, 4), dtype=np.uint8), (44, 60), interpolation=cv2.INTER_CUBIC
        )
        if not path.exists():
            cv2.imwrite(str(path), pixels)


def peak_of_tree(command: list[str]) -> tuple[int, float]:
    """Run a command; return the peak of its processes' resident memory in bytes, and its
    seconds.
    """
    start, peak = time.monotonic(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        try:
            peak = max(
                peak,
                sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]),
            )
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/score_memory"))
    parser.add_argument("--cam", default="overlay")
    options = parser.parse_args()
    model = options.work / "model"
    tiny_artifact.make(model, engines={"openvino/float32": {"within_tolerance": True}})
    rows = []
    for count in COUNTS:
        source, output = options.work / f"in{count}", options.work / f"out{count}"
        generate(source, count)
        flags = [
            f"--input={source}",
            f"--model={model}",
            f"--output={output}",
            f"--cam={options.cam}",
            "--overwrite",
        ]
        peak, seconds = peak_of_tree([sys.executable, "-c", _PROGRAM, *flags])
        lines = sum(1 for part in output.glob("predictions.jsonl*") for _ in part.open())
        journal = sum(part.stat().st_size for part in (output / "journal").iterdir())
        summary = json.loads((output / "summary.json").read_text())
        assert lines == summary["scored"] == count
        rows.append(
            [
                f"{count:,}",
                f"{lines:,}",
                f"{peak / 2**20:.0f}",
                f"{seconds:.0f}",
                f"{journal / count:.0f}",
            ]
        )
    header = [
        "images",
        "rows",
        "peak of the process tree, MiB",
        "seconds, start to end",
        "journal, bytes per image",
    ]
    tables.replace_table("score_memory", tables.markdown(header, rows))


if __name__ == "__main__":
    main()
