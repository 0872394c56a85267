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
from trainer.evaluation.grouping import group_values
from trainer.model_json.scaling import IDENTITY, Scaling

RESAMPLES = 2000
NO_INTERVAL = (
    f"none where all resamples agree or there are fewer than {bootstrap.MIN_PATIENTS} patients"
)
"""Says when a table has no interval for a metric; every table of intervals quotes it."""
ENOUGH_PATIENTS = 90
"""From here on, simulated intervals of every metric cover 90 % or more; see
`benchmarks/coverage.py`."""
COVERAGE_OF_FEW = "91 % or more, but for the calibration error per study, 69 %"
METRICS = (
    "accuracy", "balanced_accuracy", "auroc", "auprc", "sensitivity", "specificity",
    "ppv", "npv", "f1", "kappa", "brier", "ece",
)  # fmt: skip

_LOWEST = {"kappa": -1.0}
"""Smallest values of the metrics that may be negative; the largest value of every metric is 1."""


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
    return {
        **{
            name: _measure_with_intervals(level, threshold, band, resamples, seed)
            for name, level in levels.items()
        },
        "counts": {
            "images": len(cases),
            "studies": len(levels["study"]),
            "patients": len(np.unique(cases.patient_id)),
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
        the groups; a column without groups to compare is omitted.
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


def format_table(result: Mapping[str, Any]) -> str:
    """Format what `evaluate` returned as lines for a terminal.

    An example of a line is `accuracy  0.884 (0.846 to 0.921)  0.893 (0.841 to 0.940)`.
    """
    counts = result["counts"]
    rows = [f"{'':18}{'image':>26}{'study':>26}"]
    for name in result["image"]:
        rows.append(
            f"{name:18}{format_interval(result['image'][name]):>26}"
            f"{format_interval(result['study'][name]):>26}"
        )
    rows.append(
        f"{counts['images']} images ({counts['positive_images']} positive), "
        f"{counts['studies']} studies, {counts['patients']} patients; "
        f"threshold {result['threshold']:.3f}"
    )
    rows.append(f"95 % patient-bootstrap intervals, {NO_INTERVAL}")
    return "\n".join([*rows, *describe_coverage(result)])


def describe_coverage(*results: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the intervals of one of `results` cover less than they say.

    Args:
      *results: what `evaluate` returned.
    """
    fewest = min((result["counts"]["patients"] for result in results), default=ENOUGH_PATIENTS)
    if fewest >= ENOUGH_PATIENTS:
        return []
    return [
        f"with fewer than {ENOUGH_PATIENTS} patients (here {fewest}), 95 % intervals cover less:"
        f" in simulations of 30 patients, {COVERAGE_OF_FEW}"
    ]


def format_slice_tables(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Format what `evaluate_slices` returned as lines for a terminal, one table per column."""
    tables = []
    for column, rows in slices.items():
        lines = [f"\n{column[:30]:32}{'images':>8}{'positive':>10}{'accuracy':>26}{'auroc':>26}"]
        for name, row in rows.items():
            figures = f"{format_interval(row['accuracy']):>26}{format_interval(row['auroc']):>26}"
            lines.append(f"  {name[:28]:30}{row['images']:>8}{row['positives']:>10}{figures}")
        tables.append("\n".join(lines))
    return tables


DIFFERENCE_COLUMNS = f"{'baseline':>10}{'model':>10}{'difference (95 % interval)':>32}{'p':>8}"
"""Headings of the columns that `format_difference` writes after the name."""


def format_comparison(result: Mapping[str, Any]) -> str:
    """Format what `compare` returned as lines for a terminal, per image and per study.

    An example of a line is `auroc  0.911  0.934  +0.023 (+0.004 to +0.041)  0.010`.
    """
    lines = []
    for level in ("image", "study"):
        lines.append(f"{'per ' + level:18}{DIFFERENCE_COLUMNS}")
        for name, row in result[level].items():
            lines.append(format_difference(name, row))
            if name == "auroc":
                lines.append(format_difference("  by DeLong's test", {**row, **row["delong"]}))
    return "\n".join(
        [
            *lines,
            f"Paired patient bootstrap, {NO_INTERVAL}; brier and ece are better when lower. "
            "DeLong's test has patients as clusters.",
        ]
    )


def format_difference(name: str, row: Mapping[str, Any]) -> str:
    """Format one metric of two models as a line of `format_comparison`."""
    a, b = ("undefined" if row[key] is None else f"{row[key]:.3f}" for key in ("a", "b"))
    difference = "undefined" if row["difference"] is None else f"{row['difference']:+.3f}"
    if row["low"] is not None:
        difference += f" ({row['low']:+.3f} to {row['high']:+.3f})"
    p = "" if row["p_value"] is None else f"{row['p_value']:.3f}"
    return f"{name:18}{a:>10}{b:>10}{difference:>32}{p:>8}"


def format_interval(measured: Mapping[str, float | None]) -> str:
    """Format a metric: `0.884 (0.846 to 0.921)`, `0.884` without an interval, or `undefined`."""
    if measured["value"] is None:
        return "undefined"
    if measured["low"] is None:
        return f"{measured['value']:.3f}"
    return f"{measured['value']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"


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
    measured = {}
    for name, (value,) in whole.items():
        drawn = np.concatenate([block[name] for block in blocks])
        patients = bootstrap.count_each_once(cases).size
        if name == "ece":
            low, high = bootstrap.compute_error_interval(drawn, value, patients)
        else:
            lowest = _LOWEST.get(name, 0.0)
            low, high = bootstrap.compute_interval(drawn, value, patients, lowest)
        measured[name] = {"value": _replace_nan(value), "low": low, "high": high}
    return measured


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
            drawn = _recentre(drawn, value)
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


def _recentre(drawn: np.ndarray, value: float) -> np.ndarray:
    """Shift resamples of a difference of calibration errors to the mean `value`."""
    return drawn - drawn.mean() + value


def _replace_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
