"""What `summary.json` tells of a run: counts over its predictions and rejections."""

import collections
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from batch_inference.records import Prediction, Rejection

HISTOGRAM_BINS = 20


class Count(beam.CombineFn):
    """Predictions and rejections -> how many there are of each thing that the summary tells."""

    def create_accumulator(self) -> collections.Counter:
        return collections.Counter()

    def add_input(self, accumulator, element):
        accumulator.update(_counted(element))
        return accumulator

    def merge_accumulators(self, accumulators):
        return sum(accumulators, collections.Counter())

    def extract_output(self, accumulator) -> collections.Counter:
        return accumulator


def _counted(row: Prediction | Rejection) -> Iterator[tuple[str, str | int]]:
    if isinstance(row, Rejection):
        yield "rejection", row.reason
    else:
        yield "label", row.label
        yield "bin", min(int(row.probability * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)
        if row.cam:
            yield "cam", ""


def summary(counts: collections.Counter, model_id: str, engine: str) -> dict[str, Any]:
    """`summary.json` but for what only the launcher knows (the time it took)."""
    labels = {key: number for (kind, key), number in sorted(counts.items(), key=str) if kind == "label"}
    rejections = {key: number for (kind, key), number in sorted(counts.items(), key=str) if kind == "rejection"}
    scored, rejected = sum(labels.values()), sum(rejections.values())
    return {
        "inputs": scored + rejected,
        "scored": scored,
        "rejected": rejected,
        "rejections": rejections,
        "labels": labels,
        "label_shares": {label: round(number / scored, 6) for label, number in labels.items()},
        "probability_histogram": {
            "edges": [edge / HISTOGRAM_BINS for edge in range(HISTOGRAM_BINS + 1)],
            "counts": [counts["bin", edge] for edge in range(HISTOGRAM_BINS)],
        },
        "cams": counts["cam", ""],
        "model": model_id,
        "engine": engine,
    }
