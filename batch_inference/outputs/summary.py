"""What `summary.json` tells of a run: counts over its predictions and rejections, and drift."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from batch_inference.outputs import drift
from batch_inference.outputs.records import Prediction, Rejection
from trainer.artifact import Artifact

HISTOGRAM_BINS = 20


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished run tells.

    Attributes:
      output: where it wrote.
      content: of `summary.json`, which is the same however often a run was stopped.
      kept: images that an earlier run had scored already.
    """

    output: str
    content: dict[str, Any]
    kept: int = 0

    def __str__(self) -> str:
        content = self.content
        reasons = f" ({format_counts(content['rejections'])})" if content["rejections"] else ""
        before = (
            f"{self.kept} of them before and {content['scored'] - self.kept} now, "
            if self.kept
            else ""
        )
        # Images that were only compared would make any rate look better than it is.
        speed = (
            f"{content['seconds']:.0f} s"
            if self.kept
            else f"{content['images_per_second']} images/s"
        )
        told = (
            f"{content['scored']} of {content['inputs']} images scored ({format_counts(content['labels']) or 'none'}), {before}"
            f"{content['rejected']} rejected{reasons}, {speed} with {content['engine']}; everything is in {self.output}"
        )
        cautions = [*content["cautions"], *drift.describe(content["drift"])]
        return "\n".join([told, *(f"caution: {caution}" for caution in cautions)])


def format_counts(counts: dict[str, int]) -> str:
    """As `2 empty, 1 truncated`."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


class Count(beam.CombineFn):
    """Predictions and rejections -> how many there are of each thing that the summary tells."""

    def __init__(self, described: Artifact):
        """Takes the artifact, for the bins of its histograms."""
        super().__init__()
        self._edges = {
            name: described.reference[name]["edges"]
            for name in drift.MEASURED
            if name in described.reference
        }

    def create_accumulator(self) -> collections.Counter:
        return collections.Counter()

    def add_input(
        self, accumulator: collections.Counter, element: Prediction | Rejection
    ) -> collections.Counter:
        accumulator.update(self._counted(element))
        return accumulator

    def merge_accumulators(
        self, accumulators: Iterable[collections.Counter]
    ) -> collections.Counter:
        return sum(accumulators, collections.Counter())

    def extract_output(self, accumulator: collections.Counter) -> collections.Counter:
        return accumulator

    def _counted(self, row: Prediction | Rejection) -> Iterator[tuple[str, str | int]]:
        if isinstance(row, Rejection):
            yield "rejection", row.reason
            return
        yield "label", row.label
        yield "bin", min(int(row.probability * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)
        for name, edges in self._edges.items():
            yield name, drift.bin_of(getattr(row, name), edges)
        if row.cam:
            yield "cam", ""
        if row.duplicate_of:
            yield "duplicate", ""


def make_content(counts: collections.Counter, described: Artifact, engine: str) -> dict[str, Any]:
    """`summary.json` but for what only the launcher knows (the time it took)."""
    labels = {
        key: number for (kind, key), number in sorted(counts.items(), key=str) if kind == "label"
    }
    rejections = {
        key: number
        for (kind, key), number in sorted(counts.items(), key=str)
        if kind == "rejection"
    }
    scored, rejected = sum(labels.values()), sum(rejections.values())
    return {
        "inputs": scored + rejected,
        "scored": scored,
        "rejected": rejected,
        "rejections": rejections,
        "duplicates": counts["duplicate", ""],
        "labels": labels,
        "label_shares": {label: round(number / scored, 6) for label, number in labels.items()},
        "probability_histogram": {
            "edges": [edge / HISTOGRAM_BINS for edge in range(HISTOGRAM_BINS + 1)],
            "counts": [counts["bin", edge] for edge in range(HISTOGRAM_BINS)],
        },
        "drift": {
            name: drift.compare(*_histograms(name, counts, described)) for name in drift.MEASURED
        },
        "cams": counts["cam", ""],
        "model": described.model_id,
        "engine": engine,
        "threshold": described.threshold,
        "cautions": described.cautions(),
    }


def _histograms(
    name: str, counts: collections.Counter, described: Artifact
) -> tuple[list[int], Any]:
    kept = described.reference.get(name)
    return [counts[name, index] for index in range(len(kept["shares"]))] if kept else [], kept
