"""Count predictions and rejections, measure drift, and write `summary.json`."""

import collections
import dataclasses
import posixpath
from collections.abc import Container, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from batch_inference.composite import composite
from batch_inference.outputs import drift, label_metrics, output_folder, run_record
from batch_inference.outputs.records import Prediction, Rejection
from batch_inference.storage import filesystem
from trainer.artifact import Artifact
from trainer.files import study_folders

HISTOGRAM_BINS = 20


@dataclasses.dataclass(frozen=True)
class Summary:
    """The outcome of a finished run; as text, what the command prints.

    Attributes:
      output: folder of the results.
      content: content of `summary.json`, which is the same however often a run was stopped.
      kept: number of images that an earlier run had scored.
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
        # Kept images were read but not scored: a rate would be too high.
        speed = (
            f"{content['seconds']:.0f} s"
            if self.kept
            else f"{content['images_per_second']} images/s"
        )
        outcome = (
            f"{content['scored']} of {content['inputs']} images scored "
            f"({format_counts(content['labels']) or 'none'}), {before}"
            f"{content['rejected']} rejected{reasons}, {speed} with {content['engine']}; "
            f"the results are in {self.output}"
        )
        cautions = list(content["cautions"])
        if content["warnings"]:
            cautions.append(f"images have warnings ({format_counts(content['warnings'])})")
        labels = [label_metrics.format_line(content["metrics"])] if content.get("metrics") else []
        return "\n".join([outcome, *labels, *(f"caution: {caution}" for caution in cautions)])


def format_counts(counts: dict[str, int]) -> str:
    """Return counts as text, such as `2 empty, 1 truncated`."""
    return ", ".join(f"{number} {name}" for name, number in counts.items())


@composite
def WriteSummary(
    rows: tuple[beam.PCollection, beam.PCollection],
    output: str,
    described: Artifact,
    engine: Mapping[str, str],
    oversized: beam.PCollection,
) -> None:
    """Write `summary.json`, but for the run's time, from `Prediction` and `Rejection` rows.

    Args:
      output: folder of the run.
      described: the model's artifact.
      engine: `engine`, and `engine_reason`, why that was chosen.
      oversized: the folders with too many images for a study, as (folder, number of images).
    """
    uri = filesystem.join(output, output_folder.SUMMARY_JSON)
    folders = beam.pvalue.AsDict(oversized)
    # Counted one by one, then added up: flattened first, the embedded runner would keep rows.
    counts = [
        of_kind | f"Count {name}" >> beam.ParDo(Count(described), folders)
        for name, of_kind in zip(("predictions", "rejections"), rows, strict=True)
    ]
    (
        counts
        | "Flatten" >> beam.Flatten()
        | "Add" >> beam.CombineGlobally(lambda counters: sum(counters, collections.Counter()))
        | "Summarise"
        >> beam.Map(
            lambda counts, oversized: make_content(counts, described, engine, oversized), folders
        )
        | "Write" >> beam.Map(lambda content: run_record.write_json(uri, content))
    )


def find_split_up(row: Prediction, oversized: Container[str]) -> Iterator[str]:
    """Yield the oversized folder of an image that is a study by itself for this reason."""
    folder = posixpath.dirname(row.study)
    if folder in oversized and f"/{row.uri}".endswith(f"/{row.study}"):
        yield folder


def list_oversized_warnings(oversized: Mapping[str, int]) -> list[str]:
    """Return a caution on folders whose images count by themselves; nothing without such folders.

    Args:
      oversized: the number of images in each folder.
    """
    if not oversized:
        return []
    return [
        f"{study_folders.describe_oversized(oversized)}: each image in it was treated as a study "
        "of its own; if a folder is one examination, use --study_key=folder, or --study_key with a "
        "column of a manifest"
    ]


class Count(beam.DoFn):
    """Counts how often each (kind, key) of the summary occurs in the rows of a bundle."""

    def __init__(self, described: Artifact):
        """Take the artifact, for the bins of its histograms."""
        super().__init__()
        self._edges = {
            name: described.reference[name]["edges"]
            for name in drift.MEASURED
            if name in described.reference
        }
        self._counts: collections.Counter = collections.Counter()

    def start_bundle(self) -> None:
        self._counts = collections.Counter()

    def process(self, row: Prediction | Rejection, oversized: Container[str]) -> None:
        self._counts.update(self._count_row(row))
        if isinstance(row, Prediction):
            self._counts.update(("split_up", folder) for folder in find_split_up(row, oversized))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield GlobalWindows.windowed_value(self._counts)

    def _count_row(self, row: Prediction | Rejection) -> Iterator[tuple[str, str | int]]:
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
        for warning in row.warnings:
            yield "warning", warning


def make_content(
    counts: collections.Counter,
    described: Artifact,
    engine: Mapping[str, str],
    oversized: Mapping[str, int],
) -> dict[str, Any]:
    """Return the content of `summary.json`, without the run's time, which the launcher knows."""
    labels, rejections = _select(counts, "label"), _select(counts, "rejection")
    scored, rejected = sum(labels.values()), sum(rejections.values())
    measured = {
        name: drift.compare(*_histograms(name, counts, described)) for name in drift.MEASURED
    }
    return {
        "inputs": scored + rejected,
        "scored": scored,
        "rejected": rejected,
        "rejections": rejections,
        "duplicates": counts["duplicate", ""],
        "warnings": _select(counts, "warning"),
        "labels": labels,
        "label_shares": {label: round(number / scored, 6) for label, number in labels.items()},
        "probability_histogram": {
            "edges": [edge / HISTOGRAM_BINS for edge in range(HISTOGRAM_BINS + 1)],
            "counts": [counts["bin", edge] for edge in range(HISTOGRAM_BINS)],
        },
        "drift": measured,
        "cams": counts["cam", ""],
        "model": described.model_id,
        **engine,
        "threshold": described.threshold,
        "cautions": [
            *described.cautions(),
            *list_oversized_warnings(
                {folder: oversized[folder] for folder in _select(counts, "split_up")}
            ),
            *drift.describe(measured),
        ],
    }


def _select(counts: collections.Counter, kind: str) -> dict[str, int]:
    """Return the counts of one kind by key, in alphabetical order."""
    return {key: number for (of, key), number in sorted(counts.items(), key=str) if of == kind}


def _histograms(
    name: str, counts: collections.Counter, described: Artifact
) -> tuple[list[int], Any]:
    kept = described.reference.get(name)
    return [counts[name, index] for index in range(len(kept["shares"]))] if kept else [], kept
