"""The HTML report of a run: one file that needs neither network nor JavaScript."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from trainer.evaluation import figures
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.evaluation.metrics import NO_INTERVAL, format_interval
from trainer.storage import write_text

REPORT = "report.html"
_HEADLINES = (
    ("image", "accuracy"),
    ("image", "auroc"),
    ("image", "sensitivity"),
    ("image", "specificity"),
    ("study", "kappa"),
)
_NAMES = {
    "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "auroc": "AUROC", "auprc": "AUPRC",
    "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1",
    "kappa": "Cohen's kappa", "brier": "Brier score", "ece": "Calibration error (ECE)",
    "coverage": "Called (not uncertain)", "called_accuracy": "Accuracy when called",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RunReport:
    """All that the report of a run shows; plain values, so that it can be made without training.

    Attributes:
      title: of the page, such as the name of the run.
      dataset: metadata of the prepared data; read: `splits` (counts by split), `simulated`, `image_size`, `fingerprint`,
        `rejections`, `warnings`.
      operating_point: fitted on validation, or out of fold.
      cases: calibrated scores by split; those of `test` are drawn, or of `validation` or `out_of_fold` where there is no test split.
      metrics: as in `metrics.json`: by split, what `metrics.evaluate` returned.
      history: one row per epoch, see `figures.draw_curves`.
      config: settings; nested mappings are shown flat.
      environment: versions, devices, durations and the like, by name.
      slices: what `metrics.evaluate_slices` returned for the split that is drawn.
      examples: (caption, PNG) of the most confident errors.
      folds: of a cross-validation, a row for each: `fold`, `images`, `positives`, `auroc`, `temperature`, `epochs`.
    """

    title: str
    dataset: Mapping[str, Any]
    operating_point: OperatingPoint
    cases: Mapping[str, Cases]
    metrics: Mapping[str, Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    examples: Sequence[tuple[str, bytes]] = ()
    folds: Sequence[Mapping[str, Any]] = ()


def write(workdir: str, report: RunReport) -> str:
    """Writes `report.html` into `workdir`, local or in a bucket, whole or not at all; returns its path."""
    path = f"{str(workdir).rstrip('/')}/{REPORT}"
    write_text(path, render(report))
    return path


def render(report: RunReport) -> str:
    """The report as one HTML page."""
    splits = {split: measured for split, measured in report.metrics.items() if measured}
    drawn = next(
        (split for split in ("test", *report.cases) if len(report.cases.get(split, ()))), None
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = format_interval
    environment.filters["spoken"] = _spoken
    return environment.get_template("report.html.j2").render(
        report=report,
        splits=splits,
        drawn=drawn,
        names=_NAMES,
        fitted_on="out of fold" if report.folds else "on validation",
        headlines=[(level, name, splits[drawn][level][name]) for level, name in _HEADLINES]
        if drawn in splits
        else [],
        metric_names=list(next(iter(splits.values()))["image"]) if splits else [],
        about=_about(report.dataset),
        no_interval=NO_INTERVAL,
        figures=_figures(report, drawn),
        examples=[
            (caption, base64.b64encode(picture).decode()) for caption, picture in report.examples
        ],
        config=flat(report.config),
    )


def _about(dataset: Mapping[str, Any]) -> str:
    """`mura, XR_HUMERUS, 320 px`, as far as the data say."""
    size = f"{dataset['image_size']} px" if "image_size" in dataset else ""
    return ", ".join(filter(None, [dataset.get("layout"), *dataset.get("body_parts", []), size]))


def _spoken(split: str) -> str:
    return split.replace("_", " ") if split == "out_of_fold" else f"{split} split"


def curves_png(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss, accuracy and AUROC curves as PNG."""
    return figures.render_png(figures.draw_curves(history))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        rows |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return rows


def _figures(report: RunReport, drawn: str | None) -> list[dict[str, Any]]:
    """Name, SVG and text alternative of each figure that there is something to draw in; `curve` for those of training."""
    entries = []
    for title in figures.list_panels(report.history):
        last = ", ".join(
            f"{name} {float(report.history[-1].get(name, 'nan')):.3f}"
            for name in figures.CURVES[title]
        )
        alt = f"{title} over {len(report.history)} epochs; at the end {last}."
        entries.append(
            (f"curve-{title.lower()}", figures.draw_curves(report.history, [title]), alt)
        )
    curves = len(entries)
    if drawn:
        cases, point = report.cases[drawn], report.operating_point
        levels = {"image": cases, "study": aggregate_by_study(cases)}
        of = f"{_spoken(drawn)}, {len(cases)} images"
        if 0 < cases.label.sum() < len(cases):
            alt = f"ROC curves, {of}, per image and per study, with the operating point."
            entries.append(("roc", figures.draw_roc(levels, point.threshold), alt))
            alt = f"Precision-recall curves, {of}, with the operating point."
            entries.append(("pr", figures.draw_precision_recall(levels, point.threshold), alt))
        alt = f"Reliability diagram, {of}: share of positives by predicted probability."
        entries.append(("reliability", figures.draw_reliability(cases), alt))
        alt = f"Histogram of calibrated probabilities, {of}, by label, with the threshold."
        entries.append(("scores", figures.draw_score_histogram(cases, point), alt))
    return [
        {"name": name, "svg": figures.render_svg(figure, name), "alt": alt, "curve": i < curves}
        for i, (name, figure, alt) in enumerate(entries)
    ]
