"""Draw the figures of a run: training curves, ROC, precision-recall, reliability and scores.

The functions are pure. They use neither pyplot nor other global state.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, roc_curve

from trainer.evaluation.bootstrap import ECE_BINS, compute_wilson_interval
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases, count_confusion

# Okabe & Ito's blue and orange, adjusted to one medium lightness: readable on white and on black.
POSITIVE, NEGATIVE, NEUTRAL = "#d9730d", "#2f86c8", "#808890"
_INK = "#010203"  # placeholder that `render_svg` replaces by the text colour of the page
_PANEL_INCHES = (4.4, 3.7)


def render_svg(figure: Figure, name: str) -> str:
    """Render a figure as inline SVG without background, in the text colour and font of the page.

    `name` makes its ids unique on the page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    ):
        metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(_INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", drawing)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", drawing, count=2)


def render_png(figure: Figure) -> bytes:
    """Render a figure as PNG on white, 150 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


CURVES = {
    "Loss": ("loss", "val_loss"),
    "Accuracy": ("accuracy", "val_accuracy"),
    "AUROC": ("val_auroc",),
}


def draw_curves(
    history: Sequence[Mapping[str, Any]], titles: Sequence[str] | None = None
) -> Figure:
    """Draw loss, accuracy and validation AUROC by epoch, side by side.

    A dotted line marks the epoch whose weights are kept (the highest `criterion`).

    Args:
      history: one row per epoch: `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy`,
        `val_auroc`, `criterion`. Values that are absent or not a number are not drawn.
      titles: the panels to draw, keys of `CURVES`; by default those that have values.
    """
    titles = titles or list_panels(history) or list(CURVES)
    epoch, criterion = _read_column(history, "epoch"), _read_column(history, "criterion")
    figure = Figure(figsize=(3.1 * len(titles), 2.6), layout="constrained")
    for ax, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for column in CURVES[title]:
            values, colour, label = _read_column(history, column), NEGATIVE, "training"
            if column.startswith("val_"):
                colour, label = POSITIVE, "validation"
            if np.isfinite(values).any():
                style = "o-" if len(epoch) < 20 else "-"
                (line,) = ax.plot(epoch, values, style, color=colour, label=label, markersize=3.5)
                line.set_clip_on(False)  # a line at the end of the axis is whole
        if np.isfinite(criterion).any():
            ax.axvline(epoch[np.nanargmax(criterion)], color=NEUTRAL, linestyle=":", label="kept")
        finish_axes(ax, title, "epoch", "")
        ax.set_xlim(epoch.min(initial=1) - 0.5, epoch.max(initial=1) + 0.5)
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), high if title == "Loss" else min(high, 1))
        _use_integer_ticks(ax.xaxis)
    return figure


def list_panels(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the panels of `draw_curves` for which the history has values."""
    return [
        title
        for title, columns in CURVES.items()
        if any(np.isfinite(_read_column(history, c)).any() for c in columns)
    ]


def locate_axes(figure: Figure) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the first axes of a rendered figure.

    They are shares of its width and height from the upper left corner.
    """
    (left, bottom), (right, top) = figure.axes[0].get_position().get_points()
    return left, 1 - top, right, 1 - bottom


def draw_roc(
    levels: Mapping[str, Cases], threshold: float, areas: Mapping[str, str] | None = None
) -> Figure:
    """Draw the ROC curve and operating point of each level (`image`, `study`) with both classes.

    `areas` says, by level, the area under the curve with its interval, for the legend.
    """

    def curve(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        false_positive_rate, true_positive_rate, _ = roc_curve(
            cases.label, cases.probability, drop_intermediate=False
        )
        return false_positive_rate, true_positive_rate

    def point(c: Mapping[str, int]) -> tuple[float, float]:
        return c["fp"] / (c["fp"] + c["tn"]), c["tp"] / (c["tp"] + c["fn"])

    figure, ax = _make_panel()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":", linewidth=1.2, label="chance")
    _draw_levels(ax, levels, threshold, curve, point, areas)
    finish_axes(ax, "ROC", "1 - specificity", "sensitivity", "lower right")
    return figure


def draw_precision_recall(
    levels: Mapping[str, Cases], threshold: float, areas: Mapping[str, str] | None = None
) -> Figure:
    """Draw the precision-recall curve and operating point of each level with both classes.

    A dotted line marks the prevalence, the precision of calls at random. `areas` as in `draw_roc`.
    """

    def curve(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(cases.label, cases.probability)
        return recall, precision

    def point(c: Mapping[str, int]) -> tuple[float, float]:
        called = c["tp"] + c["fp"]
        return c["tp"] / (c["tp"] + c["fn"]), c["tp"] / called if called else float("nan")

    figure, ax = _make_panel()
    prevalence = float(next(iter(levels.values())).label.mean())
    label = f"prevalence per image {prevalence:.2f}"
    ax.axhline(prevalence, color=NEUTRAL, linestyle=":", linewidth=1.2, label=label)
    # The area below the steps is the average precision; straight lines would add to it.
    _draw_levels(ax, levels, threshold, curve, point, areas, drawstyle="steps-post")
    finish_axes(ax, "Precision-recall", "sensitivity (recall)", "PPV (precision)")
    return figure


def draw_reliability(cases: Cases) -> Figure:
    """Draw the share of positives by predicted probability, before and after calibration.

    Where no calibration was chosen both are the same, and one curve is drawn. The area of a dot
    shows how many images its bin contains. The bins of the probabilities in use have 95 % Wilson
    intervals, in which each patient of a bin counts once.
    """
    figure, ax = _make_panel()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":", label="perfect calibration")
    curves = [(expit(cases.logit), NEUTRAL, "uncalibrated")]
    if np.allclose(curves[0][0], cases.probability):
        curves = [(cases.probability, NEGATIVE, "not calibrated")]
    else:
        curves.append((cases.probability, NEGATIVE, "calibrated"))
    for probability, colour, label in curves:
        mean, share, images, patients = _bin_cases(cases, probability)
        ax.plot(mean, share, color=colour, label=label, linewidth=1.2)
        ax.scatter(mean, share, s=8 + 220 * images / len(cases), color=colour, alpha=0.85, zorder=3)
    # The loop ends with the probabilities in use, so these are their intervals.
    interval = compute_wilson_interval(share, patients)
    ax.vlines(mean, *interval, color=colour, linewidth=1, label="95 % interval")
    finish_axes(ax, "Reliability", "predicted probability of positive", "share that is positive")
    return figure


def _bin_cases(cases: Cases, probability: np.ndarray) -> np.ndarray:
    """Describe each bin of `probability` [N] that contains images.

    Returns:
      float64 [4, bins]: mean probability, share of positives, number of images and of patients.
    """
    ece_bin = np.minimum((probability * ECE_BINS).astype(int), ECE_BINS - 1)
    held = [ece_bin == k for k in np.unique(ece_bin)]
    rows = [
        (probability[k].mean(), cases.label[k].mean(), k.sum(), len(np.unique(cases.patient_id[k])))
        for k in held
    ]
    return np.array(rows).T


def draw_score_histogram(cases: Cases, point: OperatingPoint) -> Figure:
    """Draw a histogram of the predicted probability by label, threshold and uncertain band."""
    figure, ax = _make_panel()
    edges = np.linspace(0, 1, 21).tolist()
    for label, colour, name in ((0, NEGATIVE, "negative"), (1, POSITIVE, "positive")):
        chosen, entry = cases.probability[cases.label == label], f"labelled {name}"
        ax.hist(chosen, edges, color=colour, alpha=0.35)
        ax.hist(chosen, edges, color=colour, histtype="step", linewidth=1.5, label=entry)
    top = 0.72  # share of the panel's height; the rest is for the legend
    line = ax.axvline(point.threshold, ymax=top, color=_INK, linewidth=1.2, linestyle="--")
    # It is whole at the ends of the axis too, and lies above the axis on the left.
    line.set(clip_on=False, zorder=3, label=_name_threshold(point.threshold))
    if point.uncertain_band:
        span = ax.axvspan(*point.uncertain_band, ymax=top, color=NEUTRAL, alpha=0.3, linewidth=0)
        span.set_label("uncertain")
    finish_axes(ax, "Scores", "predicted probability of positive", "images", "upper center")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, ax.get_ylim()[1] / top)
    _use_integer_ticks(ax.yaxis)
    return figure


def _name_threshold(threshold: float) -> str:
    """Return the entry of a threshold in the legend, which never reads as 0 or 1."""
    shown = f"{threshold:.2f}"
    return f"threshold {({'1.00': '> 0.99', '0.00': '< 0.01'}).get(shown, shown)}"


def _use_integer_ticks(axis: Axis) -> None:
    """Label whole numbers only."""
    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _draw_levels(
    ax: Axes,
    levels: Mapping[str, Cases],
    threshold: float,
    curve: Any,
    point: Any,
    areas: Mapping[str, str] | None,
    drawstyle: str = "default",
) -> None:
    edge: dict[str, Any] = {"marker": "o", "markeredgecolor": _INK}
    drawn: dict[bytes, tuple[Any, Any, Any, list[str]]] = {}  # levels that coincide stand together
    for name, cases in levels.items():
        if not 0 < cases.label.sum() < len(cases):
            continue
        (x, y), at = curve(cases), point(count_confusion(cases, threshold))
        drawn.setdefault(np.round([*x, *y, *at], 9).tobytes(), (x, y, at, []))[-1].append(name)
    for (x, y, at, names), colour in zip(drawn.values(), (NEGATIVE, POSITIVE), strict=False):
        label = f"per {' and per '.join(names)}" + (f", {areas[names[0]]}" if areas else "")
        ax.plot(x, y, color=colour, linewidth=1.6, label=label, drawstyle=drawstyle)
        ax.plot(*at, color=colour, markersize=8, **edge)
    ax.plot([], [], color=NEUTRAL, linestyle="", label=_name_threshold(threshold), **edge)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)


def _make_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_PANEL_INCHES, layout="constrained")
    return figure, figure.subplots()


def finish_axes(ax: Axes, title: str, x: str, y: str, legend: Any = "best") -> None:
    """Give axes their title, labels, grid and legend, in the colours of the page."""
    ax.set_title(title, color=_INK, fontsize=11, fontweight="bold", loc="left")
    ax.set_xlabel(x, color=_INK)
    ax.set_ylabel(y, color=_INK)
    ax.tick_params(colors=_INK, labelsize=9)
    ax.grid(color=NEUTRAL, alpha=0.25, linewidth=0.6)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(NEUTRAL)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc=legend, frameon=False, fontsize=9, labelcolor=_INK)


def _read_column(history: Iterable[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([float(row.get(name, "nan")) for row in history])
