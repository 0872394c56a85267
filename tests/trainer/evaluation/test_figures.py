"""What the figures of a run show: axes, legends, and curves that coincide."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from trainer.evaluation import figures
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases
from trainer.model_json.scaling import Scaling


def make_cases(images: int) -> Cases:
    """Make cases of one image a study, without calibration."""
    label = np.arange(images) % 2
    logit = 2.0 * label - 1 + np.random.default_rng(0).normal(size=images)
    names = [f"p{i}" for i in range(images)]
    return Cases(expit(logit), logit, label, names, names, names)


def list_entries(figure) -> list[str]:
    return figure.axes[0].get_legend_handles_labels()[1]


def list_ticks(axis) -> list[float]:
    """Return the values of the ticks between the ends of an axis."""
    low, high = axis.get_view_interval()
    return [value for value in axis.get_majorticklocs() if low <= value <= high]


@pytest.mark.parametrize("images", [2, 7, 40])
def test_counts_and_epochs_are_whole_numbers(images):
    point = OperatingPoint(Scaling(1.0, 0.0), 0.5, "kappa")
    counts = list_ticks(figures.draw_score_histogram(make_cases(images), point).axes[0].yaxis)
    epochs = [{"epoch": i + 1, "loss": 0.5} for i in range(images // 2)]
    steps = list_ticks(figures.draw_curves(epochs).axes[0].xaxis)
    for ticks in (counts, steps):
        assert ticks and all(value == round(value) for value in ticks), ticks


def test_shares_end_at_1_and_no_panel_is_empty():
    history = [{"epoch": i, "loss": 0.0, "accuracy": 1.0, "val_auroc": 1.0} for i in (1, 2)]
    limits = [axes.get_ylim() for axes in figures.draw_curves(history).axes]
    assert len(limits) == 3 and limits[0][0] == 0 and limits[1][1] == limits[2][1] == 1
    alone = figures.draw_curves([{"epoch": 1, "loss": 0.5, "accuracy": 0.5}])
    assert [axes.get_title("left") for axes in alone.axes] == ["Loss", "Accuracy"]


@pytest.mark.parametrize(
    ("threshold", "shown"),
    [(0.99985, "> 0.99"), (0.00004, "< 0.01"), (0.5, "0.50"), (0.99, "0.99")],
)
def test_a_threshold_never_reads_as_0_or_1_and_its_line_is_whole(threshold, shown):
    point = OperatingPoint(Scaling(1.0, 0.0), threshold, "kappa")
    figure = figures.draw_score_histogram(make_cases(20), point)
    assert f"threshold {shown}" in list_entries(figure)
    (line,) = (each for each in figure.axes[0].lines if "threshold" in str(each.get_label()))
    assert not line.get_clip_on()


def test_what_coincides_is_drawn_once():
    cases = make_cases(20)
    calibrated = dataclasses.replace(cases, probability=expit(cases.logit / 2))
    interval = "95 % interval"
    assert list_entries(figures.draw_reliability(cases)) == [
        "perfect calibration",
        "not calibrated",
        interval,
    ]
    assert list_entries(figures.draw_reliability(calibrated)) == [
        "perfect calibration",
        "uncalibrated",
        "calibrated",
        interval,
    ]
    for draw in (figures.draw_roc, figures.draw_precision_recall):
        same, apart = (
            list_entries(draw({"image": cases, "study": other}, 0.5, {"image": "a", "study": "b"}))
            for other in (cases, make_cases(12))
        )
        assert same[1:] == ["per image and per study, a", "threshold 0.50"]
        assert apart[1:] == ["per image, a", "per study, b", "threshold 0.50"]
