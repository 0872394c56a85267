"""Run every step on this machine, for `make train-local`: render or read images, train, score."""

import collections
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator

from trainer import artifact
from trainer.evaluation.metric_tables import format_interval
from trainer.options import LAYOUTS, MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from trainer.program.command_line import Program, Result
from trainer.program.flags_from_dataclass import option


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the script."""

    work: str = option("Folder for everything that is made.")
    source: str = option("Folder of your own radiographs; by default, simulated ones.", "")
    layout: str = option("Layout of --source.", "mura", choices=LAYOUTS)
    config: str = option("Recipe in trainer/configs.", "smoke")
    image_size: int = option(
        "Side of the images in pixels.", 112, low=MIN_IMAGE_SIZE, high=MAX_IMAGE_SIZE
    )


@Program("trainer.local", Options, has_json=False, takes_arguments=True)
def main(options: Options, *train_flags: str) -> Result:
    """Runs every step of a project in order, each with the command that a user would call.

    python -m trainer.local --work=runs/demo
    python -m trainer.local --work=runs/own --source=MURA-v1.1 --config=humerus --image_size=320

    Started again, it continues with what is not finished. Flags of humerus-train come after `--`.
    """
    started = time.monotonic()
    steps = list(_plan_steps(options, train_flags))
    for number, (title, command) in enumerate(steps, 1):
        sys.stdout.write(f"\n[{number}/{len(steps)}] {title}\n$ {shlex.join(command)}\n")
        sys.stdout.flush()
        program = pathlib.Path(sys.executable).with_name(command[0])
        code = subprocess.run([program, *command[1:]], check=False).returncode
        if code:
            raise SystemExit(code)
    text = summarise(pathlib.Path(options.work), time.monotonic() - started)
    return Result(f"\n{text}", None)


def _plan_steps(options: Options, train_flags: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the command of each step."""
    work, source, layout = options.work, options.source, options.layout
    model, folder = f"--model={work}/train/artifact", _folder_to_score(source, layout)
    if not options.source:
        rendered = ["humerus-phantom", f"--output={work}/simulated", "--patients=1000"]
        yield "Rendering simulated radiographs", rendered
        source, layout = f"{work}/simulated/MURA-v1.1", "mura"
        folder = f"{source}/valid"
    prepared = [
        f"--source={source}",
        f"--layout={layout}",
        f"--data_dir={work}/data",
        f"--image_size={options.image_size}",
    ]
    yield "Preparing TFRecords", ["humerus-prepare", *prepared]
    trained = [
        f"--data_dir={work}/data",
        f"--workdir={work}/train",
        f"--config={options.config}",
        *train_flags,
    ]
    yield f"Training, evaluation and export (recipe: {options.config})", ["humerus-train", *trained]
    if not options.source:
        masks = f"--masks={source}/findings.json"
        yield (
            "Comparing the maps with the rendered findings",
            ["humerus-verify", model, f"--data_dir={work}/data", masks],
        )
    scored = [f"--input={folder}", model, f"--output={work}/scored", "--overwrite"]
    yield "Scoring the folder with Apache Beam", ["humerus-score", *scored]


def summarise(work: pathlib.Path, seconds: float) -> str:
    """Return a summary: quality, counts, the places of the results, and what to run next."""
    metrics = json.loads((work / "train" / "metrics.json").read_text()).get("test", {})
    run = json.loads((work / "scored" / "summary.json").read_text())
    image, study = metrics.get("image"), metrics.get("study")
    checks = artifact.load(work / "train" / "artifact").map_checks
    outcomes = collections.Counter(check["passed"] for check in checks.values())
    quality = (
        "no test split"
        if not image
        else (
            f"AUROC {format_interval(image['auroc'])}, "
            f"accuracy {format_interval(image['accuracy'])}, "
            f"study kappa {format_interval(study['kappa'])}"
        )
    )
    return "\n".join(
        [
            f"Test split  {quality}",
            f"Maps        checks: {outcomes[True]} passed, {outcomes[False]} failed, "
            f"{outcomes[None]} not measured",
            f"Scored      {run['scored']} images, {sum(run['rejections'].values())} rejected",
            f"Model       {work}/train/artifact   report: {work}/train/report.html",
            f"Results     {work}/scored: predictions.*, studies.*, rejections.*, "
            "maps in cams/, all of them in gallery.html",
            f"Time        {seconds / 60:.1f} minutes. Assists research; not a medical device.",
            f"Next        score a folder of yours:\n{_format_next_command(work)}",
        ]
    )


def _format_next_command(work: pathlib.Path) -> str:
    """Return the command that scores a folder with the model, ready to paste."""
    program = pathlib.Path(sys.executable).with_name("humerus-score")
    if program.is_relative_to(pathlib.Path.cwd()):
        program = program.relative_to(pathlib.Path.cwd())
    model = f"--model={work}/train/artifact"
    return shlex.join([str(program), "--input=FOLDER", model, "--output=scored"])


def _folder_to_score(source: str, layout: str) -> str:
    """Return the folder to score.

    It is that of MURA's validation images of the prepared body part, or else the whole source.
    """
    roots = (source, f"{source}/MURA-v1.1") if layout == "mura" else ()
    candidates = [f"{root}/{folder}" for folder in ("valid/XR_HUMERUS", "valid") for root in roots]
    return next((folder for folder in candidates if pathlib.Path(folder).is_dir()), source)


if __name__ == "__main__":
    sys.exit(main())
