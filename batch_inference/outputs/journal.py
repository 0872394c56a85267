"""Write rows to small files during a run, so that a later run need not score them again.

    OUTPUT/journal/ATTEMPT-HASH.jsonl.gz

Each line is `[digest of the source, prediction]` or `[null, rejection]`. The journal also holds the
rows between scoring and the final files, so that no runner keeps them in memory.
"""

import dataclasses
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.runner import PipelineResult

from batch_inference.buffering import Buffered
from batch_inference.composite import composite
from batch_inference.outputs.records import Prediction, Rejection, Source
from batch_inference.storage import filesystem

JOURNAL = "journal"
KEPT = "kept"
"""The kind of rows that were taken over from earlier attempts."""
ROWS_PER_PART = 1000
SECONDS_PER_PART = 10.0
"""A part is written when it holds so many rows or is so old. A kill loses rows in no part."""
_PART_NAME = re.compile(r"\d{4,}-[0-9a-f]{32}\.jsonl\.gz")
"""Attempt and hash of the content."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A prediction, and the digest of the source that it was made from."""

    source: str
    row: Prediction


def digest(source: Source) -> str:
    """Return 32 hexadecimal digits over all fields of a source.

    They say whether a row still holds, together with the row's own `sha256` of the content.
    """
    fields: list[Any] = [source.uri, source.name, source.study, source.carried]
    if source.address:
        fields.append(source.address)
    return hashlib.blake2b(json.dumps(fields).encode("ascii"), digest_size=16).hexdigest()


@composite
def ReadEarlierEntries(pipeline: beam.Pipeline, parts: Iterable[str]) -> beam.PCollection:
    """Read the predictions of earlier attempts as entries, from the URIs of their parts."""
    return pipeline | beam.Create(parts) | beam.FlatMap(read_entries)


@composite
def WriteJournal(
    rows: Mapping[str, beam.PCollection], output: str, attempt: str
) -> beam.PCollection:
    """Write entries and rejections, collections by kind, and return the URIs of their parts.

    The collections are joined only behind the journal: joined ahead of it, the embedded runner
    would keep all of them until the last image is scored.

    Args:
      output: folder of the run.
      attempt: prefix of this attempt's parts.
    """
    parts = [
        of_kind | f"Write {kind}" >> beam.ParDo(Write(output, attempt, kind))
        for kind, of_kind in rows.items()
    ]
    return parts | beam.Flatten() | beam.Reshuffle()


class Write(Buffered):
    """Writes entries or rejections into parts, and returns the URI of each part.

    A part is named after its content, so that a repeated bundle writes the same parts. A bundle
    that fails may leave parts whose URIs are lost; only `read_entries` of a later run finds them.
    """

    def __init__(self, output: str, attempt: str, kind: str):
        """Take the folder of the run, the prefix of its parts, and the name of Beam's counter."""
        super().__init__(ROWS_PER_PART, SECONDS_PER_PART)
        self._prefix = filesystem.join(_folder(output), attempt)
        self._counter = Metrics.counter(JOURNAL, kind)

    def flush(self, entries: Sequence[Entry | Rejection]) -> Iterator[str]:
        pairs = [
            [entry.source, vars(entry.row)] if isinstance(entry, Entry) else [None, vars(entry)]
            for entry in entries
        ]
        contents = "\n".join(map(json.dumps, pairs)).encode("ascii")
        uri = f"{self._prefix}-{hashlib.sha256(contents).hexdigest()[:32]}.jsonl.gz"
        filesystem.write(uri, gzip.compress(contents, 6, mtime=0), "application/gzip")
        self._counter.inc(len(entries))
        yield uri


def read_predictions(part: str) -> Iterator[Prediction]:
    """Yield the predictions of a part."""
    return (entry.row for entry in _read(part, rejected=False))


def read_rejections(part: str) -> Iterator[Rejection]:
    """Yield the rejections of a part."""
    return _read(part, rejected=True)


def read_entries(part: str) -> list[Entry]:
    """Return the predictions of an earlier attempt's part; none where the part is damaged.

    Rejected files are tried again: storage may have been at fault, and a second try costs little.
    """
    try:
        return list(_read(part, rejected=False))
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        logging.warning("%s cannot be read (%s); its images are scored again", part, error)
        return []


def count_written(result: PipelineResult, kind: str) -> int:
    """Return how many rows of a kind a run wrote, as its runner counted them."""
    found = result.metrics().query(MetricsFilter().with_namespace(JOURNAL).with_name(kind))
    return sum(counter.result for counter in found[MetricResults.COUNTERS])


def list_parts(output: str) -> list[str]:
    """Return the URIs of all parts of all attempts. Other files in the folder are left alone."""
    return [
        filesystem.join(_folder(output), name)
        for name in filesystem.names(_folder(output))
        if _PART_NAME.fullmatch(name)
    ]


def name_attempt(parts: Iterable[str]) -> str:
    """Return the prefix of a new attempt's parts, a number after those of the given parts."""
    numbers = (part.rpartition("/")[2].partition("-")[0] for part in parts)
    return f"{1 + max(map(int, numbers), default=0):04d}"


def keep_only(output: str, attempt: str) -> None:
    """Delete the parts of other attempts: the last one has written again what it kept of them."""
    for part in list_parts(output):
        if not part.rpartition("/")[2].startswith(f"{attempt}-"):
            filesystem.delete(part)


def _folder(output: str) -> str:
    return filesystem.join(output, JOURNAL)


def _read(part: str, rejected: bool) -> Iterator[Any]:
    """Yield either the rejections or the entries of a part; the other lines are not parsed."""
    for line in gzip.decompress(filesystem.read(part)).splitlines():
        if line.startswith(b"[null") != rejected:
            continue
        source, fields = json.loads(line)
        if rejected:
            yield Rejection(**fields)
        else:
            fields |= {name: tuple(fields.get(name, ())) for name in ("warnings", "dicom")}
            yield Entry(source, Prediction(**fields))
