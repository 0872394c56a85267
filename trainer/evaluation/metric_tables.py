"""Format metrics and their intervals, for terminals and pages."""

from collections.abc import Mapping
from typing import Any

from trainer.evaluation import bootstrap
from trainer.program import text_table

NO_INTERVAL = (
    f"none for fewer than {bootstrap.MIN_PATIENTS} patients (most metrics:"
    f" {bootstrap.MIN_PATIENTS} of each class), or if every resample gives the same value"
)
"""When a table has no interval for a metric; every table of intervals quotes it."""
ENOUGH_PATIENTS = 90
"""From this many on, simulated intervals of every metric cover 90 % or more where 20 % or more of
the studies are positive. Where 5 % are, the specificity per study needs 135. See the table of
`benchmarks/coverage.py` in benchmarks/README.md."""
_COVERAGE_OF_FEW = (
    "in simulations of 30 patients they held the true value 91 % of the time or more (calibration"
    " error per study: 69 %) with 20 or 50 % positive studies, and 83 % or more (specificity per"
    " study: 54 %) with 5 %"
)
_ENOUGH_OF_A_CLASS = 20
"""From this many patients of the rarer class on, a perfect ranking raises no warning."""
_WIDE_INTERVAL = 0.2
"""Width of the interval of the AUROC from which images are called too few."""
DIFFERENCE_COLUMNS = ("baseline", "model", "difference (95 % interval)", "p")
"""Headings of the cells that `list_difference` returns."""


def format_table(result: Mapping[str, Any]) -> str:
    """Format what `evaluate` returned as lines for a terminal.

    An example of a line is `accuracy  0.884 (0.846 to 0.921)  0.893 (0.841 to 0.940)`.
    """
    counts = result["counts"]
    levels = ("image", "study")
    rows = [
        [name, *(format_interval(result[level][name]) for level in levels)]
        for name in result["image"]
    ]
    return "\n".join(
        [
            text_table.align(("metric", *levels), rows),
            f"{counts['images']} images ({counts['positive_images']} positive), "
            f"{counts['studies']} studies, {counts['patients']} patients; "
            f"threshold {result['threshold']:.3f}",
            f"95 % intervals from resampling patients; {NO_INTERVAL}",
            *describe_coverage(result),
            *describe_size(result),
        ]
    )


def describe_coverage(*results: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the intervals of one of `results` are too narrow.

    Args:
      *results: what `evaluate` returned.
    """
    fewest = min((result["counts"]["patients"] for result in results), default=ENOUGH_PATIENTS)
    if fewest >= ENOUGH_PATIENTS:
        return []
    return [f"with only {fewest} patients these 95 % intervals are too narrow: {_COVERAGE_OF_FEW}"]


def _count_rarer(result: Mapping[str, Any]) -> int:
    """Return the number of patients of the rarer class; of older results, which lack it, of all."""
    counts = result["counts"]
    names = ("positive_patients", "negative_patients")
    return min(counts.get(name, counts["patients"]) for name in names)


def describe_size(result: Mapping[str, Any], name: str = "this set of images") -> list[str]:
    """Return a sentence if the images are too few to judge the network, or it is at chance level.

    Args:
      result: what `evaluate` returned.
      name: what the sentence calls the images, such as `the test split`.
    """
    auroc, counts = result["image"]["auroc"], result["counts"]
    low, high = auroc["low"], auroc["high"]
    counted = (
        f"({counts['images']} images of {counts['patients']} patients,"
        f" {counts['positive_images']} positive)"
    )
    if auroc["value"] is None:
        return [f"{name} holds one class only {counted}, so that the AUROC is undefined"]
    if low is None or high is None:  # every pair of cases is ranked alike
        if _count_rarer(result) >= _ENOUGH_OF_A_CLASS:
            return []
        reason = "the AUROC has no interval"
    elif high - low > _WIDE_INTERVAL:
        chance = ", chance (0.5) among them" if low <= 0.5 <= high else ""
        reason = f"any AUROC between {low:.2f} and {high:.2f} fits it{chance}"
    elif low <= 0.5 <= high:
        return [
            f"the network ranks {name} no better than chance {counted}: any AUROC"
            f" between {low:.2f} and {high:.2f} fits"
        ]
    else:
        return []
    return [f"{name} is too small to tell how good this network is {counted}: {reason}"]


def format_slice_tables(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Format what `evaluate_slices` returned as lines for a terminal, one table per column."""
    tables = []
    for column, groups in slices.items():
        rows = [
            [
                name[:28],
                str(row["images"]),
                str(row["positives"]),
                *(format_interval(row[metric]) for metric in ("accuracy", "auroc")),
            ]
            for name, row in groups.items()
        ]
        header = (column[:28], "images", "positive", "accuracy", "auroc")
        tables.append(f"\n{text_table.align(header, rows)}")
    return tables


def format_comparison(result: Mapping[str, Any]) -> str:
    """Format what `compare` returned as lines for a terminal, per image and per study.

    An example of a line is `auroc  0.911  0.934  +0.023 (+0.004 to +0.041)  0.010`.
    """
    tables = []
    for level in ("image", "study"):
        rows = []
        for name, row in result[level].items():
            rows.append([name, *list_difference(row)])
            if name == "auroc":
                rows.append(["  by DeLong's test", *list_difference({**row, **row["delong"]})])
        tables.append(text_table.align((f"per {level}", *DIFFERENCE_COLUMNS), rows))
    return "\n".join(
        [
            *tables,
            f"Intervals from resampling patients in pairs; {NO_INTERVAL}; "
            "brier and ece are better when lower. DeLong's test has patients as clusters.",
        ]
    )


def list_difference(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one metric of two models below `DIFFERENCE_COLUMNS`."""
    a, b = ("undefined" if row[key] is None else f"{row[key]:.3f}" for key in ("a", "b"))
    difference = format_interval({**row, "value": row["difference"]}, "+.3f")
    return a, b, difference, format_p_value(row["p_value"])


def format_p_value(p: float | None) -> str:
    """Format a p-value: `0.010`, `<0.001`, or nothing where there is none."""
    if p is None:
        return ""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def format_interval(measured: Mapping[str, float | None], number: str = ".3f") -> str:
    """Format a metric: `0.884 (0.846 to 0.921)`, `0.884` without an interval, or `undefined`.

    Args:
      measured: `{"value", "low", "high"}`.
      number: the format of each of them.
    """
    if measured["value"] is None:
        return "undefined"
    value = f"{measured['value']:{number}}"
    if measured["low"] is None:
        return value
    return f"{value} ({measured['low']:{number}} to {measured['high']:{number}})"
