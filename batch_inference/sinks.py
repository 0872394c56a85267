"""What a run leaves behind: rows, pictures, counts, and the record of the run itself."""

import collections
import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.coders import BytesCoder

from batch_inference import names, progress, schema, storage
from batch_inference.records import Prediction, Rejection, Scored, Study, printable, reject
from trainer import overlay
from trainer.artifact import Artifact

RUN_JSON = "run.json"
SUMMARY_JSON = "summary.json"
RESULTS = ("predictions.", "studies.", "rejections.", "beam-temp-", SUMMARY_JSON, RUN_JSON, names.CAMS)
HISTOGRAM_BINS = 20


@dataclasses.dataclass(frozen=True)
class Finish:
    """Scored -> Prediction, its picture drawn and written; or Rejection.

    Attributes:
      output: folder of the run.
      described: the model's artifact.
      engine: what the row names as its engine.
      style: one of `overlay.STYLES`.
      file_format: key of `overlay.FORMATS`.
      min_probability: below it no picture is drawn.
    """

    output: str
    described: Artifact
    engine: str
    style: str
    file_format: str
    min_probability: float

    def __call__(self, scored: Scored | Rejection) -> Prediction | Rejection:
        progress.advance()
        if isinstance(scored, Rejection):
            return scored
        example = scored.example
        try:
            cam = self._write_picture(scored)
        except Exception as error:
            # One picture that cannot be drawn or stored must not cost the rest of the bundle.
            return reject(example.source, "write_failed", str(error), self.described.model_id, example.sha256, example.frame)
        return Prediction(
            uri=printable(example.source.uri),
            label=self.described.label(scored.probability),
            probability=float32(scored.probability),
            logit=float32(scored.logit),
            study=example.source.study,
            cam=cam,
            model=self.described.model_id,
            engine=self.engine,
            sha256=example.sha256,
            frame=example.frame,
            modality=example.tags.get("modality"),
            body_part=example.tags.get("body_part"),
            view=example.tags.get("view"),
            carried=dict(example.source.carried),
        )

    def _write_picture(self, scored: Scored) -> str | None:
        picture = scored.example.picture
        if picture is None or scored.probability < self.min_probability:
            return None
        drawn = overlay.draw(picture, scored.cam, self.described.image_size, self.described.cam["scale"], self.style)
        path = names.cam_path(scored.example.source.name, overlay.FORMATS[self.file_format])
        contents = overlay.encode(drawn, self.file_format)
        storage.write(storage.join(self.output, path), contents, overlay.MIME_TYPES[self.file_format])
        return path


def float32(value: float) -> float:
    """The shortest decimal number that is this float32: 0.1 and not 0.10000000149011612."""
    return float(str(np.float32(value)))


def json_line(row: Any) -> bytes:
    """A row (any of the dataclasses) as one line of JSON."""
    return json.dumps(schema.record(row)).encode("ascii")


def csv_line(values: Iterable[Any]) -> bytes:
    """Values as one record of CSV (RFC 4180, UTF-8), without the line end; line breaks in a value stay, quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["" if value is None else value for value in values])
    return line.getvalue().encode("utf-8")


class WriteRows(beam.PTransform):
    """Writes rows of one kind as `NAME.jsonl-SSSSS-of-NNNNN` and, if wanted, `NAME.csv-SSSSS-of-NNNNN`."""

    def __init__(self, output: str, name: str, columns: Sequence[schema.Column], with_csv: bool = True):
        super().__init__()
        self._prefix = storage.join(output, name)
        self._columns = [column.name for column in columns]
        self._with_csv = with_csv

    def expand(self, rows: beam.PCollection) -> None:
        columns = self._columns
        lines = rows | "JSON" >> beam.Map(json_line).with_output_types(bytes)
        lines | "Write JSON" >> beam.io.WriteToText(f"{self._prefix}.jsonl", coder=BytesCoder())
        if self._with_csv:
            records = rows | "CSV" >> beam.Map(lambda row: csv_line(map(schema.record(row).get, columns))).with_output_types(
                bytes
            )
            records | "Write CSV" >> beam.io.WriteToText(f"{self._prefix}.csv", coder=BytesCoder(), header=csv_line(columns))


class PerStudy(beam.CombineFn):
    """(probability, uri) of a study's images -> (mean, images, uri of the highest)."""

    def create_accumulator(self) -> tuple[float, int, tuple[float, str]]:
        return 0.0, 0, (-1.0, "")

    def add_input(self, accumulator, element):
        total, images, highest = accumulator
        return total + element[0], images + 1, max(highest, tuple(element))

    def merge_accumulators(self, accumulators):
        totals, images, highest = zip(*accumulators, strict=True)
        return sum(totals), sum(images), max(highest)

    def extract_output(self, accumulator) -> tuple[float, int, str]:
        total, images, highest = accumulator
        return total / images, images, highest[1]


def study_row(study: str, combined: tuple[float, int, str], described: Artifact) -> Study:
    """The row of a study. The mean is rounded to float32, which hides the order in which the images came."""
    mean, images, highest = combined
    return Study(study, described.label(mean), float32(mean), images, highest, described.model_id)


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


def write_json(uri: str, content: Any) -> None:
    """Writes a JSON document for people and programs."""
    storage.write(uri, (json.dumps(content, indent=2) + "\n").encode("utf-8"), "application/json")


def results_in(output: str) -> list[str]:
    """Names in `output` that a former run left."""
    return [name for name in storage.names(output) if name.startswith(RESULTS)]
