"""Compute metrics per image and per study with confidence intervals, and compare two models.

Images of one patient are not independent. The bootstrap therefore resamples patients (with
replacement, 2,000 times). An interval of a metric is 95 % on the logit scale; one of a difference
between two models holds the middle 95 % of the resamples.

A metric that is undefined for the cases is None, never NaN. Examples are the AUROC if a class is
missing, and the PPV if no case is called positive.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.errors import DataError
from trainer.evaluation import bootstrap, delong
from trainer.evaluation.cases import Cases, aggregate_by_study, count_confusion
from trainer.evaluation.grouping import group_values, identifies_patients
from trainer.model_json.scaling import IDENTITY, Scaling

RESAMPLES = 2000
METRICS = (
    "accuracy", "balanced_accuracy", "auroc", "auprc", "sensitivity", "specificity",
    "ppv", "npv", "f1", "kappa", "brier", "ece",
)  # fmt: skip

_LOWEST = {"kappa": -1.0}
"""Smallest values of the metrics that may be negative; the largest value of every metric is 1."""
_RESTS_ON = {
    "sensitivity": (1,),
    "specificity": (0,),
    **dict.fromkeys(("auroc", "balanced_accuracy", "auprc", "f1", "kappa"), (0, 1)),
}
"""The labels that each metric is computed from. The one with fewer patients limits the interval."""


def evaluate(
    cases: Cases,
    threshold: float,
    band: tuple[float, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    study_scaling: Scaling = IDENTITY,
) -> dict[str, Any]:
    """Compute all of `METRICS` per image and per study.

    Args:
      cases: scored images.
      threshold: calibrated probability at and above which a case is called positive.
      band: probabilities [low, high) that are called uncertain. Adds `coverage`, the share of cases
        that are not uncertain, and `called_accuracy`, their accuracy. The other metrics are of all
        cases.
      resamples: number of bootstrap resamples of patients.
      seed: seed of the bootstrap.
      study_scaling: turns the mean logit of a study into its probability.

    Returns:
      `{"image": {metric: {"value", "low", "high"}}, "study": {...}, "counts",
      "confusion": {"image": {"tp", ...}, ...}, "threshold", "uncertain_band"}`, ready for JSON. An
      interval is over the resamples in which the metric is defined, and None where
      `bootstrap.compute_interval` has none. That of the expected calibration error `ece` is by
      `bootstrap.compute_error_interval`.

    Raises:
      DataError: there is no case, or a study has two labels.
    """
    if not len(cases):
        raise DataError("there is no case to evaluate; name a split that holds images")
    levels = {"image": cases, "study": aggregate_by_study(cases, study_scaling)}
    negative_patients, positive_patients = _count_patients(cases)
    return {
        **{
            name: _measure_with_intervals(level, threshold, band, resamples, seed)
            for name, level in levels.items()
        },
        "counts": {
            "images": len(cases),
            "studies": len(levels["study"]),
            "patients": len(np.unique(cases.patient_id)),
            "positive_patients": positive_patients,
            "negative_patients": negative_patients,
            "positive_images": int(cases.label.sum()),
            "positive_studies": int(levels["study"].label.sum()),
        },
        "confusion": {name: count_confusion(level, threshold) for name, level in levels.items()},
        "threshold": float(threshold),
        "uncertain_band": list(band) if band else None,
    }


def evaluate_slices(
    cases: Cases,
    columns: Mapping[str, Sequence[Any]],
    threshold: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute accuracy, AUROC and kappa of the images in each group of each column.

    Args:
      cases: scored images.
      columns: by name, one value per case in the order of `cases`. `grouping.group_values` makes
        the groups; a column without groups to compare is omitted, and so is one that identifies
        patients.
      threshold: calibrated probability at and above which a case is called positive.
      resamples: number of bootstrap resamples of patients.
      seed: seed of the bootstrap.

    Returns:
      `{column: {group: {"images", "patients", "positives", "accuracy": {"value", "low", "high"},
      "auroc", "kappa"}}}`.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in columns.items():
        if len(values) != len(cases):
            raise DataError(f"column {column} has {len(values)} values for {len(cases)} cases")
        if identifies_patients(values, cases.patient_id):
            continue
        for name, members in group_values(values).items():
            group = cases.take(members)
            measured = _measure_with_intervals(group, threshold, None, resamples, seed)
            table.setdefault(column, {})[name] = {
                "images": len(group),
                "patients": len(np.unique(group.patient_id)),
                "positives": int(group.label.sum()),
                **{metric: measured[metric] for metric in ("accuracy", "auroc", "kappa")},
            }
    return table


def compare(
    a: Cases,
    b: Cases,
    threshold_a: float = 0.5,
    threshold_b: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
    scalings: tuple[Scaling, Scaling] = (IDENTITY, IDENTITY),
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare two models by the paired patient bootstrap of the difference `b - a` of each metric.

    Both models are evaluated on the same resampled patients. So it cancels out how difficult a
    patient is for both.

    Args:
      a, b: the same images, scored by each of the models.
      threshold_a, threshold_b: probability at and above which each model calls a case positive.
      resamples: number of bootstrap resamples of patients.
      seed: seed of the bootstrap.
      scalings: turn the mean logit of a study into its probability, for `a` and for `b`.

    Returns:
      `{"image": {metric: {"a", "b", "difference", "low", "high", "p_value"}}, "study": {...}}`. The
      p-value is two-sided, see `bootstrap.compute_p_value`. Beside it, the row of `auroc` holds
      `delong`, the result of `delong.compare_auroc`.

    Raises:
      DataError: the two differ in images, labels, studies or patients.
    """
    if not len(a):
        raise DataError("there is no case to compare on; name a split that holds images")
    a, b = a.take(np.argsort(a.path)), b.take(np.argsort(b.path))
    if not np.array_equal(a.path, b.path):
        differing = sorted(set(a.path.tolist()) ^ set(b.path.tolist()))
        raise DataError(
            f"two models are compared on the same images, but {len(differing)} are scored by one "
            f"only: {differing[0]}; score the same data set with both"
        )
    for name in ("label", "study_id", "patient_id"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise DataError(
                f"the two sets of scores disagree on the {name} of an image; score the same "
                "data set with both"
            )
    studies = tuple(map(aggregate_by_study, (a, b), scalings))
    pairs = {"image": (a, b), "study": (studies[0], studies[1])}
    return {
        name: _measure_differences(*pair, threshold_a, threshold_b, resamples, seed)
        for name, pair in pairs.items()
    }


def _measure_with_intervals(
    cases: Cases, threshold: float, band: tuple[float, float] | None, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    whole = bootstrap.compute_weighted_metrics(
        cases, bootstrap.count_each_once(cases), threshold, band
    )
    blocks = [
        bootstrap.compute_weighted_metrics(cases, block, threshold, band)
        for block in bootstrap.draw_blocks(cases, resamples, seed)
    ]
    everyone, of_label = bootstrap.count_each_once(cases).size, _count_patients(cases)
    measured = {}
    for name, (value,) in whole.items():
        drawn = np.concatenate([block[name] for block in blocks])
        patients = min((of_label[label] for label in _RESTS_ON.get(name, ())), default=everyone)
        if name == "ece":
            low, high = bootstrap.compute_error_interval(drawn, value, patients)
        elif name == "balanced_accuracy" and _has_constant_class(whole):
            low = high = None
        else:
            lowest = _LOWEST.get(name, 0.0)
            low, high = bootstrap.compute_interval(drawn, value, patients, lowest)
        measured[name] = {"value": _replace_nan(value), "low": low, "high": high}
    return measured


def _count_patients(cases: Cases) -> tuple[int, int]:
    """Return how many patients have an image that is negative, and one that is positive."""
    negative, positive = (
        len(np.unique(cases.patient_id[cases.label == label])) for label in (0, 1)
    )
    return negative, positive


def _has_constant_class(whole: Mapping[str, np.ndarray]) -> bool:
    """Return whether all cases of one class get the same call; no resample can then vary it."""
    return any(whole[name][0] in (0.0, 1.0) for name in ("sensitivity", "specificity"))


def _measure_differences(
    a: Cases, b: Cases, threshold_a: float, threshold_b: float, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    def both(multiplicity: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        of_a = bootstrap.compute_weighted_metrics(a, multiplicity, threshold_a)
        return of_a, bootstrap.compute_weighted_metrics(b, multiplicity, threshold_b)

    whole_a, whole_b = both(bootstrap.count_each_once(a))
    blocks = [both(block) for block in bootstrap.draw_blocks(a, resamples, seed)]
    rows: dict[str, dict[str, Any]] = {}
    for name in METRICS:
        value = (whole_b[name] - whole_a[name])[0]
        drawn = np.concatenate([block_b[name] - block_a[name] for block_a, block_b in blocks])
        if name == "ece":
            drawn = drawn - drawn.mean() + value  # shifted to this mean
        low, high = bootstrap.compute_difference_interval(
            drawn, value, bootstrap.count_each_once(a).size
        )
        rows[name] = {
            "a": _replace_nan(whole_a[name][0]),
            "b": _replace_nan(whole_b[name][0]),
            "difference": _replace_nan(value),
            "low": low,
            "high": high,
            "p_value": None if low is None else bootstrap.compute_p_value(drawn),
        }
    rows["auroc"]["delong"] = delong.compare_auroc(a, b)
    return rows


def _replace_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
