"""Rows at rest: what is scored is written down in small files as it goes, so that no run has to do it again.

    OUTPUT/journal/ATTEMPT-HASH.jsonl.gz     [digest of the source, prediction] or [null, rejection] on each line

Rows also rest there between scoring and the final files: no runner has to keep them in memory meanwhile.
"""

import dataclasses
import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
from absl import logging
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from batch_inference.outputs.records import Prediction, Rejection, Source
from batch_inference.storage import filesystem

JOURNAL = "journal"
ROWS_PER_PART = 1000
SECONDS_PER_PART = 10.0
"""What a kill can cost at most: rows that are not yet in a part are scored again."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A prediction, and the digest of the source that it was made from."""

    source: str
    row: Prediction


def digest(source: Source) -> str:
    """Names a source with all that the row takes from it but the file's content; that, the row names itself (`sha256`)."""
    return hashlib.blake2b(
        json.dumps(dataclasses.astuple(source)).encode("ascii"), digest_size=16
    ).hexdigest()


class Write(beam.DoFn):
    """Entries and rejections -> URIs of the parts that hold them, each written when it is full or old enough.

    A part is named after its content: a bundle that is repeated leaves no more than the first time. What a runner gave up
    half-way may leave parts that nobody is told of; they count for `known` alone.
    """

    def __init__(self, output: str, attempt: str, kind: str):
        """Takes the folder of the run, what tells this attempt from others, and the counter of Beam that counts the rows."""
        super().__init__()
        self._prefix = filesystem.join(_folder(output), attempt)
        self._counter = Metrics.counter(JOURNAL, kind)
        self._lines: list[str] = []
        self._started = 0.0

    def start_bundle(self) -> None:
        # A bundle that failed may have left some behind; its entries come again.
        self._lines.clear()

    def process(self, entry: Entry | Rejection) -> Iterator[str]:
        if not self._lines:
            self._started = time.monotonic()
        source, row = (entry.source, entry.row) if isinstance(entry, Entry) else (None, entry)
        self._lines.append(json.dumps([source, dataclasses.asdict(row)]))
        self._counter.inc()
        if (
            len(self._lines) >= ROWS_PER_PART
            or time.monotonic() - self._started >= SECONDS_PER_PART
        ):
            yield self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._lines:
            yield WindowedValue(self._write(), MIN_TIMESTAMP, (GlobalWindow(),))

    def _write(self) -> str:
        contents = "\n".join(self._lines).encode("ascii")
        uri = f"{self._prefix}-{hashlib.sha256(contents).hexdigest()[:32]}.jsonl.gz"
        filesystem.write(uri, gzip.compress(contents, 6, mtime=0), "application/gzip")
        self._lines.clear()
        return uri


def read_predictions(part: str) -> Iterator[Prediction]:
    """The predictions of a part."""
    return (entry.row for entry in _read(part) if isinstance(entry, Entry))


def read_rejections(part: str) -> Iterator[Rejection]:
    """The rejections of a part."""
    return (entry for entry in _read(part) if isinstance(entry, Rejection))


def read_entries(part: str) -> list[Entry]:
    """The predictions of an earlier attempt's part; none where it is damaged, as its images can be scored again.

    What was rejected is tried again: it may have been the storage's fault, and costs little where it was not.
    """
    try:
        return [entry for entry in _read(part) if isinstance(entry, Entry)]
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        logging.warning("%s is of no use (%s); its images are scored again", part, error)
        return []


def count_written(result: PipelineResult, kind: str) -> int:
    """Rows of a kind that a run wrote, as its runner counted them."""
    found = result.metrics().query(MetricsFilter().with_namespace(JOURNAL).with_name(kind))
    return sum(counter.result for counter in found[MetricResults.COUNTERS])


def list_parts(output: str) -> list[str]:
    """URIs of all parts of all attempts."""
    return [filesystem.join(_folder(output), name) for name in filesystem.names(_folder(output))]


def name_attempt(parts: Iterable[str]) -> str:
    """Names an attempt that is later than those that wrote these parts."""
    numbers = (part.rpartition("/")[2].partition("-")[0] for part in parts)
    return f"{1 + max((int(number) for number in numbers if number.isdecimal()), default=0):04d}"


def keep_only(output: str, attempt: str) -> None:
    """Deletes the parts of other attempts: the last one wrote down again what it took from them."""
    for name in filesystem.names(_folder(output)):
        if not name.startswith(f"{attempt}-"):
            filesystem.delete(filesystem.join(_folder(output), name))


def _folder(output: str) -> str:
    return filesystem.join(output, JOURNAL)


def _read(part: str) -> Iterator[Entry | Rejection]:
    for line in gzip.decompress(filesystem.read(part)).splitlines():
        source, fields = json.loads(line)
        yield Rejection(**fields) if source is None else Entry(source, Prediction(**fields))
