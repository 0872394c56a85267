"""Format metrics and their intervals, for terminals and pages."""

from collections.abc import Mapping
from typing import Any

from trainer.evaluation import bootstrap

NO_INTERVAL = (
    f"none for fewer than {bootstrap.MIN_PATIENTS} patients (most metrics:"
    f" {bootstrap.MIN_PATIENTS} of each class), or if every resample gives the same value"
)
"""Says when a table has no interval for a metric; every table of intervals quotes it."""
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
DIFFERENCE_COLUMNS = f"{'baseline':>10}{'model':>10}{'difference (95 % interval)':>32}{'p':>8}"
"""Headings of the columns that `format_difference` writes after the name."""


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
    rows.append(f"95 % intervals from resampling patients; {NO_INTERVAL}")
    return "\n".join([*rows, *describe_coverage(result), *describe_size(result)])


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
    for column, rows in slices.items():
        lines = [f"\n{column[:30]:32}{'images':>8}{'positive':>10}{'accuracy':>26}{'auroc':>26}"]
        for name, row in rows.items():
            figures = f"{format_interval(row['accuracy']):>26}{format_interval(row['auroc']):>26}"
            lines.append(f"  {name[:28]:30}{row['images']:>8}{row['positives']:>10}{figures}")
        tables.append("\n".join(lines))
    return tables


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
            f"Intervals from resampling patients in pairs; {NO_INTERVAL}; "
            "brier and ece are better when lower. DeLong's test has patients as clusters.",
        ]
    )


def format_difference(name: str, row: Mapping[str, Any]) -> str:
    """Format one metric of two models as a line of `format_comparison`."""
    a, b = ("undefined" if row[key] is None else f"{row[key]:.3f}" for key in ("a", "b"))
    difference = format_interval({**row, "value": row["difference"]}, "+.3f")
    return f"{name:18}{a:>10}{b:>10}{difference:>32}{format_p_value(row['p_value']):>8}"


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
