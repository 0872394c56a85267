r"""What the recipe was chosen by: the recipe, and the recipe with one thing changed, on simulated radiographs.

    humerus-phantom --output=simulated --patients=700 --seed=11
    humerus-prepare --source=simulated/MURA-v1.1 --layout=mura --data_dir=data --image_size=128
    python -m benchmarks.recipe_choices --data_dir=data --weights=xception_notop.weights.h5 --workdir=runs/choices

Simulated, because there is enough of it to tell variants apart: on some 60 real positives an AUROC has an interval of several points.
Each variant is one run of `humerus-train`; stopped, the same command goes on where it was. Writes its table into benchmarks/README.md.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from benchmarks.tables import markdown, replace_table
from trainer import evaluate, metrics

EPOCHS = 6
VARIANTS = {
    "the recipe": (),
    "all layers learn": ("--config.unfreeze_layers=all",),
    "the last 16 % of the layers learn (Xception: its last four blocks)": ("--config.unfreeze_layers=16%",),
    "a head of three Dense layers": ("--config.head_widths=(1024, 1024, 512)",),
    "the mirror image asked too": ("--config.test_time_flip",),
}


def main() -> None:
    options = _options()
    rows = []
    for name, flags in VARIANTS.items():
        artifact = f"{train(name, flags, options)}/artifact"
        measured = evaluate.evaluate(artifact, options.data_dir)["image"]
        gain = ""
        if flags:
            baseline = f"{options.workdir}/{_folder('the recipe')}/artifact"
            row = evaluate.compare(artifact, baseline, options.data_dir)["image"]["auroc"]
            gain = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        rows.append([name, *(metrics.format_interval(measured[metric]) for metric in ("auroc", "accuracy")), gain])
    counts = json.loads((pathlib.Path(artifact) / "model.json").read_text())["dataset"]["splits"]
    about = (
        f"{counts['train']['images']} images to train on, {counts['test']['images']} to test, 2 + {EPOCHS} epochs, one seed."
    )
    table = markdown(["variant", "test AUROC", "test accuracy", "AUROC above the recipe's"], rows)
    replace_table("recipe_choices", f"{about} Intervals: 95 %, patients resampled; the last column is paired.\n\n{table}")


def train(name: str, flags: tuple[str, ...], options: argparse.Namespace) -> str:
    """One run; its folder."""
    workdir = f"{options.workdir}/{_folder(name)}"
    command = [
        str(pathlib.Path(sys.executable).with_name("humerus-train")),
        f"--data_dir={options.data_dir}",
        f"--workdir={workdir}",
    ]
    command += ["--config=humerus", f"--config.backbone={options.backbone}", f"--config.weights={options.weights}"]
    subprocess.run([*command, f"--config.epochs={EPOCHS}", *flags], check=True)
    return workdir


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="where humerus-prepare wrote")
    parser.add_argument("--workdir", required=True, help="gets a folder for each variant")
    parser.add_argument("--weights", default="imagenet", help="of the backbone")
    parser.add_argument("--backbone", default="xception")
    return parser.parse_args()


if __name__ == "__main__":
    main()
