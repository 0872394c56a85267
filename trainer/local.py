"""The whole job on this machine, for `make train-local`: simulate or take a source, prepare, train, score.

    python -m trainer.local --work=runs/demo
    python -m trainer.local --work=runs/own --source=MURA-v1.1 --layout=mura --config=humerus --image_size=320

Each step is the program that a user would call by hand, and is shown. Started again, it takes up where it was.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator

from trainer import artifact, errors
from trainer.evaluation.metrics import format_interval


def main() -> int:
    """Runs the steps in order; ends with the exit code of the first that fails."""
    options = _options()
    started, work = time.monotonic(), pathlib.Path(options.work)
    steps = list(_steps(options))
    for number, (title, command) in enumerate(steps, 1):
        sys.stdout.write(f"\n[{number}/{len(steps)}] {title}\n$ {shlex.join(command)}\n")
        sys.stdout.flush()
        code = subprocess.run(
            [pathlib.Path(sys.executable).with_name(command[0]), *command[1:]], check=False
        ).returncode
        if code:
            return code
    sys.stdout.write(f"\n{summary(work, time.monotonic() - started)}\n")
    return errors.EXIT_DONE


def _steps(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Title and command of each."""
    work, source, layout = options.work, options.source, options.layout
    model, folder = f"--model={work}/train/artifact", _folder_to_score(source, layout)
    if not options.source:
        rendered = ["humerus-phantom", f"--output={work}/simulated", "--patients=1000"]
        yield "Rendering simulated radiographs, of no patient", rendered
        source, layout = f"{work}/simulated/MURA-v1.1", "mura"
        folder = f"{source}/valid"
    prepared = [
        f"--source={source}",
        f"--layout={layout}",
        f"--data_dir={work}/data",
        f"--image_size={options.image_size}",
    ]
    yield "Radiographs -> TFRecords", ["humerus-prepare", *prepared]
    trained = [
        f"--data_dir={work}/data",
        f"--workdir={work}/train",
        f"--config={options.config}",
        *options.train_flags,
    ]
    yield f"Training, evaluation, export (recipe: {options.config})", ["humerus-train", *trained]
    if not options.source:
        masks = f"--masks={source}/findings.json"
        yield (
            "Do the maps lie on the findings that were rendered?",
            ["humerus-verify", model, f"--data_dir={work}/data", masks],
        )
    scored = [f"--input={folder}", model, f"--output={work}/scored", "--overwrite"]
    yield "Scoring the folder with Apache Beam", ["humerus-score", *scored]


def summary(work: pathlib.Path, seconds: float) -> str:
    """Six lines: how good, how many scored, and where everything is."""
    metrics = json.loads((work / "train" / "metrics.json").read_text()).get("test", {})
    run = json.loads((work / "scored" / "summary.json").read_text())
    image, study = metrics.get("image"), metrics.get("study")
    checks = artifact.load(work / "train" / "artifact").map_checks
    quality = (
        "no test split"
        if not image
        else (
            f"AUROC {format_interval(image['auroc'])}, accuracy {format_interval(image['accuracy'])},"
            f" study kappa {format_interval(study['kappa'])}"
        )
    )
    return "\n".join(
        [
            f"Test split  {quality}",
            f"Maps        {sum(check['passed'] is True for check in checks.values())} of {len(checks)} checks passed",
            f"Scored      {run['scored']} images, {sum(run['rejections'].values())} rejected",
            f"Model       {work}/train/artifact   report: {work}/train/report.html",
            f"Results     {work}/scored: predictions.*, studies.*, rejections.*, pictures in cams/; look through them: gallery.html",
            f"Time        {seconds / 60:.1f} minutes. Assists research; not a medical device.",
        ]
    )


def _folder_to_score(source: str, layout: str) -> str:
    """The official validation images of MURA, of the body part that is prepared; of another source, all of it."""
    roots = (source, f"{source}/MURA-v1.1") if layout == "mura" else ()
    candidates = [f"{root}/{folder}" for folder in ("valid/XR_HUMERUS", "valid") for root in roots]
    return next((folder for folder in candidates if pathlib.Path(folder).is_dir()), source)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, help="folder for everything that is made")
    parser.add_argument(
        "--source", default="", help="your own radiographs; simulated ones without it"
    )
    parser.add_argument("--layout", default="mura", choices=("mura", "folders", "manifest"))
    parser.add_argument("--config", default="smoke", help="recipe in trainer/configs")
    parser.add_argument("--image_size", type=int, default=112)
    parser.add_argument("train_flags", nargs="*", help="after --: further flags of humerus-train")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
