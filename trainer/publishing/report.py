"""Render the HTML report of a run: one file that needs no network.

Without JavaScript, only the threshold cannot be moved.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.dataset.dataset_info import DatasetInfo
from trainer.evaluation import figures, fit_scaling
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.evaluation.metric_tables import (
    NO_INTERVAL,
    describe_coverage,
    describe_size,
    format_interval,
)
from trainer.publishing import page_templates

REPORT = "report.html"
_QUANTITIES = {"roc": ("1 - specificity", "sensitivity"), "pr": ("sensitivity", "PPV")}
"""What the axes show of the figures on which the threshold can be moved."""
_HEADLINES = (
    ("image", "accuracy"),
    ("image", "auroc"),
    ("image", "sensitivity"),
    ("image", "specificity"),
    ("study", "kappa"),
)
NAMES = {
    "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "auroc": "AUROC",
    "auprc": "AUPRC", "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV",
    "npv": "NPV", "f1": "F1",
    "kappa": "Cohen's kappa", "brier": "Brier score", "ece": "Calibration error (ECE)",
    "coverage": "Called (not uncertain)", "called_accuracy": "Accuracy when called",
}  # fmt: skip


FEWEST_IN_A_SLICE = 10
_MOST_CASES = 20_000
"""Above it, a page with all cases would open slowly; the threshold cannot be moved then."""


@dataclasses.dataclass(frozen=True)
class MisclassifiedImage:
    """An image whose call is wrong, with its map.

    Attributes:
      path: of the image, as in the data.
      called, truth: `positive` or `negative`.
      probability: calibrated.
      png: the map over the image.
    """

    path: str
    called: str
    truth: str
    probability: float
    png: bytes


@dataclasses.dataclass(frozen=True)
class RunReport:
    """Everything that the report of a run shows, as plain values.

    Attributes:
      title: title of the page, such as the name of the run.
      dataset: the data that the run was trained on.
      operating_point: fitted on validation images, or out of fold.
      cases: calibrated scores by split. Figures are drawn of `test`, or of `validation` or
        `out_of_fold` where there is no test split.
      metrics: by split, what `metrics.evaluate` returned, as in `metrics.json`.
      history: one row per epoch, see `figures.draw_curves`.
      settings: every setting of the run by its name.
      environment: versions, devices, durations and the like, by name.
      slices: what `metrics.evaluate_slices` returned for the split whose figures are drawn.
      examples: the most confident errors.
      colours: of the maps, from 0 to the last, as stops of a CSS gradient.
      full_colour: value of the maps' last colour and its unit; the first colour is 0.
      map_checks: as in the artifact, see `map_checks.check`.
      links: text and address, from the page, of what else the run left.
      folds: a row for each fold of a cross-validation: `fold`, `images`, `positives`, `auroc`,
        `temperature` and `epochs`.
    """

    title: str
    dataset: DatasetInfo
    operating_point: OperatingPoint
    cases: Mapping[str, Cases]
    metrics: Mapping[str, Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    examples: Sequence[MisclassifiedImage] = ()
    colours: str = ""
    full_colour: str = ""
    map_checks: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    links: Sequence[tuple[str, str]] = ()
    folds: Sequence[Mapping[str, Any]] = ()


def render(report: RunReport) -> str:
    """Return the report as one HTML page."""
    splits = {split: measured for split, measured in report.metrics.items() if measured}
    shown = next(
        (split for split in ("test", *report.cases) if len(report.cases.get(split, ()))), None
    )
    environment = page_templates.make_environment()
    environment.filters["spoken"] = _name_split
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.get_template("report.html.j2").render(
        report=report,
        splits=splits,
        shown=shown,
        names=NAMES,
        fitted_on="out of fold" if report.folds else "on validation",
        headlines=_select_headlines(splits, shown),
        metric_names=list(next(iter(splits.values()))["image"]) if splits else [],
        about=_summarise_data(report.dataset),
        no_interval=NO_INTERVAL,
        coverage=describe_coverage(*splits.values()),
        calibrations=fit_scaling.describe(report.operating_point.records),
        figures=_draw_figures(report, shown),
        slices=select_slices(report.slices),
        fewest=FEWEST_IN_A_SLICE,
        too_small=describe_size(splits[shown], f"the {_name_split(shown)}")
        if shown and shown in splits
        else [],
        cases=_list_cases(report, shown),
    )


def select_slices(
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and measurements of the slices with enough images, those that are alike once.

    Slices of the same counts and metrics hold the same images, as `PNG` and `grey` may do; their
    names are joined.
    """
    names: dict[str, list[str]] = {}
    rows: dict[str, Mapping[str, Any]] = {}
    for column, groups in slices.items():
        for group, row in groups.items():
            if row["images"] >= FEWEST_IN_A_SLICE:
                names.setdefault(repr(sorted(row.items())), []).append(f"{column}: {group}")
                rows[repr(sorted(row.items()))] = row
    return [("; ".join(names[key]), row) for key, row in rows.items()]


def _list_cases(report: RunReport, shown: str | None) -> dict[str, Any] | None:
    """Return what the script of the page needs to move the threshold; None where it can't."""
    cases = report.cases.get(shown or "")
    if cases is None or not 0 < len(cases) <= _MOST_CASES:
        return None
    scored = zip(cases.path, cases.label, cases.probability, strict=True)
    return {
        "threshold": report.operating_point.threshold,
        "cases": [[str(path), int(label), float(score)] for path, label, score in scored],
        "drawn": {example.path: i for i, example in enumerate(report.examples)},
    }


def _select_headlines(
    splits: Mapping[str, Mapping[str, Any]], shown: str | None
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return level, name and value of each figure at the top of the page."""
    if shown is None or shown not in splits:
        return []
    return [(level, name, splits[shown][level][name]) for level, name in _HEADLINES]


def _summarise_data(dataset: DatasetInfo) -> str:
    """Return such as `mura, XR_HUMERUS, 320 px`."""
    parts = [dataset.layout, *dataset.body_parts, f"{dataset.image_size} px"]
    return ", ".join(filter(None, parts))


def _name_split(split: str) -> str:
    """Return a split's name for a sentence."""
    return split.replace("_", " ") if split == "out_of_fold" else f"{split} split"


def _draw_figures(report: RunReport, shown: str | None) -> list[dict[str, Any]]:
    """Draw the figures that have something to show; `curve` marks those of training."""
    curves = _draw_training_curves(report)
    scores = _draw_score_figures(report, shown) if shown else []
    return [
        {
            "name": name,
            "svg": figures.render_svg(figure, name),
            "alt": alt,
            "curve": is_curve,
            # Known only after it was rendered.
            "axes": " ".join(f"{share:.4f}" for share in figures.locate_axes(figure)),
            "quantities": _QUANTITIES.get(name),
        }
        for is_curve, drawn in ((True, curves), (False, scores))
        for name, figure, alt in drawn
    ]


def _draw_training_curves(report: RunReport) -> list[tuple[str, Any, str]]:
    """Return name, figure and text alternative of each curve over epochs."""
    drawn = []
    for title in figures.list_panels(report.history):
        last = ", ".join(
            f"{name} {float(report.history[-1].get(name, 'nan')):.3f}"
            for name in figures.CURVES[title]
        )
        alt = f"{title} over {len(report.history)} epochs; at the end {last}."
        drawn.append((f"curve-{title.lower()}", figures.draw_curves(report.history, [title]), alt))
    return drawn


def _draw_score_figures(report: RunReport, shown: str) -> list[tuple[str, Any, str]]:
    """Return name, figure and text alternative of each figure of the scores of one split."""
    cases, point = report.cases[shown], report.operating_point
    levels = {"image": cases, "study": aggregate_by_study(cases, point.effective_study_scaling)}
    images = f"{_name_split(shown)}, {len(cases)} images"
    measured = report.metrics.get(shown) or {}
    roc, pr = (
        {level: f"{NAMES[name]} {format_interval(measured[level][name])}" for level in levels}
        if measured
        else None
        for name in ("auroc", "auprc")
    )
    drawn = []
    if 0 < cases.label.sum() < len(cases):
        alt = f"ROC curves, {images}, per image and per study, with the operating point."
        drawn.append(("roc", figures.draw_roc(levels, point.threshold, roc), alt))
        alt = f"Precision-recall curves, {images}, with the operating point."
        drawn.append(("pr", figures.draw_precision_recall(levels, point.threshold, pr), alt))
    alt = f"Reliability diagram, {images}: share of positives by predicted probability."
    drawn.append(("reliability", figures.draw_reliability(cases), alt))
    alt = f"Histogram of calibrated probabilities, {images}, by label, with the threshold."
    drawn.append(("scores", figures.draw_score_histogram(cases, point), alt))
    return drawn
