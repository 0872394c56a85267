"""Make the report of a run, and the folder of a finished run, without training."""

import csv
import io
import json
import pathlib

import numpy as np
from PIL import Image

from trainer.dataset.dataset_info import DatasetInfo
from trainer.evaluation import calibration, metrics
from trainer.evaluation.cases import Cases
from trainer.publishing import report


def scored(patients: int, seed: int) -> Cases:
    """Return cases of one to three images a patient, told apart well but not perfectly."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, 4, size=patients))
    label = generator.integers(2, size=patients)[patient]
    names = [f"patient{p:05d}" for p in patient]
    paths = [f"{name}/study1/image{k}.png" for k, name in enumerate(names)]
    logits = 2 * (generator.normal(size=len(patient)) + 2.1 * (label - 0.5))
    return Cases(np.full(len(patient), 0.5), logits, label, ["study1"] * len(patient), names, paths)


def picture() -> bytes:
    """Return a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)).save(buffer, "PNG")
    return buffer.getvalue()


def make() -> report.RunReport:
    """Return the report of a run with validation and test split, an uncertain band and an error."""
    validation, test = scored(40, 0), scored(60, 1)
    point = calibration.fit(validation, abstain=0.1)
    cases = {
        "validation": calibration.apply(point.scaling, validation),
        "test": calibration.apply(point.scaling, test),
    }
    counts = {"images": 100, "studies": 60, "patients": 50, "positives": 47, "rejected": 1}
    rising = np.linspace(0.5, 0.9, 8)
    return report.RunReport(
        title="first <run> & more",
        dataset=DatasetInfo(
            simulated=True,
            layout="mura",
            body_parts=("XR_HUMERUS",),
            image_size=320,
            preprocessing={},
            fingerprint="0123456789abcdef0123",
            splits={"train": counts, "validation": counts, "test": counts},
            rejections={"truncated": 6},
            warnings=(
                "two files are the same image",
                "such as " + "a_long_folder/" * 9 + "image.png",
            ),
        ),
        operating_point=point,
        cases=cases,
        metrics={
            split: metrics.evaluate(
                cases[split], point.threshold, point.uncertain_band, resamples=100
            )
            for split in ("test", "validation")
        },
        history=[
            {
                "epoch": k + 1,
                "loss": 1 - v,
                "accuracy": v,
                "val_loss": 1.1 - v,
                "val_accuracy": v - 0.1,
                "val_auroc": v,
                "criterion": v,
            }
            for k, v in enumerate(rising)
        ],
        settings={"backbone": "densenet121", "augmentation.rotation": 30.0},
        environment={"tensorflow": "2.21.0"},
        slices=metrics.evaluate_slices(
            cases["test"],
            {"source_mode": np.resize(["grey", "rgb"], len(test))},
            point.threshold,
            resamples=20,
        ),
        examples=[report.MisclassifiedImage("image7.png", "positive", "negative", 0.98, picture())],
        colours="black, white",
        full_colour="1.5 logits per cell",
        map_checks={
            "flip": {"passed": True, "said": "mirrored maps agree"},
            "localisation": {"passed": None, "said": "there are no masks"},
        },
        links=[("model card", "artifact/MODEL_CARD.md")],
    )


def write_run(folder: pathlib.Path, **settings: str) -> pathlib.Path:
    """Write what `humerus-report` reads of a finished run; `settings` are those of its recipe."""
    made = make()
    (folder / "artifact").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(made.metrics))
    settings = {f"config.{name}": value for name, value in settings.items()}
    fingerprint = {"data.fingerprint": made.dataset.fingerprint}
    (folder / "config.json").write_text(json.dumps(fingerprint | settings))
    described = {
        "model_id": "0123456789abcdef",
        "created": "2026-01-01T00:00:00+00:00",
        "architecture": {"backbone": "xception"},
        "dataset": {"simulated": True},
    }
    (folder / "artifact" / "model.json").write_text(json.dumps(described))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made.history[0]))
        writer.writeheader()
        writer.writerows(made.history)
    (folder / report.REPORT).write_text(report.render(made), encoding="utf-8")
    return folder
