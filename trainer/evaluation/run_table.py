"""Compare several runs on the same images: a table with paired differences from the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.evaluation import evaluate, metric_tables, metrics
from trainer.program import text_table

COLUMNS = ("auroc", "accuracy", "brier")
"""Metrics of the table; of `brier`, less is better."""


def compare_runs(artifacts: Mapping[str, str], data_dir: str, split: str) -> dict[str, Any]:
    """Score a split with each artifact once, and compare each with the first.

    Args:
      artifacts: artifact directories by the name of their run, the baseline first.
      data_dir: the data set that `humerus-prepare` wrote.
      split: `train`, `validation` or `test`.

    Returns:
      `{"baseline", "split", "images", "patients", "runs": {name: {"model_id", metric: {"value",
      "low", "high", "difference", "p_value"}, ...}}, "warnings"}`. Differences are those of
      `metrics.compare` per image: `{"value", "low", "high"}`; None of the baseline itself. The
      p-value of `auroc` is that of DeLong's test with patients as clusters.

    Raises:
      ArtifactError, ConfigError, DataError: as `evaluate.evaluate`, for any of them.
    """
    loaded = evaluate.load_split(data_dir, split)
    rows: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    first = None
    for name, model in artifacts.items():
        info, scored = evaluate.score(model, data_dir, loaded, f"the model of {name}")
        warnings += evaluate.list_caveats(model, info, data_dir, split)
        measured = metrics.evaluate(scored, info.threshold, study_scaling=info.study_scaling)
        row: dict[str, Any] = {"model_id": info.model_id}
        row |= {
            metric: {**measured["image"][metric], "difference": None, "p_value": None}
            for metric in COLUMNS
        }
        if first is None:
            first = info, scored
        else:
            compared = metrics.compare(
                first[1],
                scored,
                first[0].threshold,
                info.threshold,
                scalings=(first[0].study_scaling, info.study_scaling),
            )["image"]
            for metric in COLUMNS:
                row[metric] |= _read_difference(compared[metric])
        rows[name] = row
    return {
        "baseline": next(iter(artifacts)),
        "split": split,
        "images": len(loaded),
        "patients": len(set(loaded.patient_id.tolist())),
        "runs": rows,
        "warnings": warnings,
    }


def _read_difference(compared: Mapping[str, Any]) -> dict[str, Any]:
    tested = compared.get("delong", compared)
    return {
        "difference": {
            "value": compared["difference"],
            "low": compared["low"],
            "high": compared["high"],
        },
        "p_value": tested["p_value"],
    }


def format_table(result: Mapping[str, Any], settings: Mapping[str, Sequence[str]]) -> str:
    """Format what `compare_runs` returned as lines for a terminal, a table for each metric.

    Args:
      result: what `compare_runs` returned.
      settings: by the name of the run, words that are shown beside it.
    """
    lines = [
        f"{result['images']} images of {result['patients']} patients, split {result['split']}; "
        f"differences from {result['baseline']}, paired by patient"
    ]
    for metric in COLUMNS:
        rows = []
        for name, row in result["runs"].items():
            value = metric_tables.format_interval(row[metric])
            difference = row[metric]["difference"]
            compared = metric_tables.format_interval(difference, "+.3f") if difference else ""
            p_value = metric_tables.format_p_value(row[metric]["p_value"])
            rows.append([name, value, compared, p_value, " ".join(settings.get(name, ()))])
        header = (metric, "value (95 %)", "difference (95 %)", "p", "settings")
        lines.append(f"\n{text_table.align(header, rows)}")
    others = len(result["runs"]) - 1
    lines.append(
        f"\n95 % intervals from resampling patients; {metric_tables.NO_INTERVAL};"
        " p of auroc by DeLong's test."
    )
    if others > 1:
        lines.append(
            f"{others} comparisons: by chance alone, one in twenty has p below 0.05. Choose on the "
            "validation split, and measure the chosen run on the test split once."
        )
    return "\n".join(lines)
