"""Write the rows of each bundle to one file in each format, and then name all of these files.

Beam's sinks do this in a dozen steps for each format, which the embedded runner takes half a second
to set up.
"""

import csv
import io
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from batch_inference.outputs import schema
from batch_inference.outputs.schema import Column
from batch_inference.storage import filesystem

MIME_TYPES = {
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
_NAMES = {"jsonl": "{}.jsonl-{}", "csv": "{}.csv-{}", "parquet": "{}-{}.parquet"}
_ROWS_PER_GROUP = 10_000
"""Rows of Parquet that are held in memory until they are written."""


class WriteShards(beam.DoFn):
    """Writes rows, and returns (format, URI) of the files of each bundle.

    A bundle that fails leaves files whose URIs are lost, so `folder` is to be deleted in the end.
    """

    def __init__(self, folder: str, table: Sequence[Column], formats: Sequence[str]):
        """Take a folder for temporary files, the columns, and some of `MIME_TYPES`."""
        super().__init__()
        self._folder = folder
        self._table = table
        self._formats = formats
        self._shards: list[_Shard] = []

    def start_bundle(self) -> None:
        # A failed bundle may have left some behind; the runner repeats its rows.
        self._shards = []

    def process(self, row: Any) -> None:
        self._shards = self._shards or [
            _Shard(self._folder, self._table, name) for name in self._formats
        ]
        record = schema.to_record(row)
        for shard in self._shards:
            shard.write(record)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for shard in self._shards:
            yield GlobalWindows.windowed_value(shard.close())


def name_shards(
    shards: Iterable[tuple[str, str]],
    prefix: str,
    folder: str,
    table: Sequence[Column],
    formats: Sequence[str],
) -> None:
    """Move all that `WriteShards` wrote to numbered names that begin with `prefix`.

    Of each format there is one file at least. Runners may repeat this where it failed halfway.
    """
    shards = list(shards)
    unnamed = set(filesystem.names(folder))
    for format_ in formats:
        uris = sorted(uri for of, uri in shards if of == format_)
        if not uris:
            _, uri = _Shard(folder, table, format_).close()
            uris = [uri]
            unnamed.add(uri.rpartition("/")[2])
        moves = [
            (uri, _NAMES[format_].format(prefix, f"{number:05d}-of-{len(uris):05d}"))
            for number, uri in enumerate(uris)
            if uri.rpartition("/")[2] in unnamed
        ]
        if moves:
            FileSystems.rename(*map(list, zip(*moves, strict=True)))


class _Shard:
    """Writes records to one file."""

    def __init__(self, folder: str, table: Sequence[Column], format_: str):
        self._format = format_
        self._columns = [column.name for column in table]
        self._uri = filesystem.join(folder, f"{uuid.uuid4().hex}.{format_}")
        self._file = FileSystems.create(
            self._uri, MIME_TYPES[format_], CompressionTypes.UNCOMPRESSED
        )
        self._waiting: list[dict[str, Any]] = []
        if format_ == "csv":
            self._file.write(format_csv(self._columns) + b"\n")
        elif format_ == "parquet":
            self._parquet = pyarrow.parquet.ParquetWriter(
                self._file, schema.to_arrow(table), compression="zstd"
            )

    def write(self, record: dict[str, Any]) -> None:
        if self._format == "parquet":
            self._waiting.append(record)
            if len(self._waiting) >= _ROWS_PER_GROUP:
                self._write_group()
        elif self._format == "csv":
            self._file.write(format_csv(map(record.get, self._columns)) + b"\n")
        else:
            self._file.write(format_json(record) + b"\n")

    def close(self) -> tuple[str, str]:
        if self._waiting:
            self._write_group()
        if self._format == "parquet":
            self._parquet.close()
        self._file.close()
        return self._format, self._uri

    def _write_group(self) -> None:
        self._parquet.write_table(pyarrow.Table.from_pylist(self._waiting, self._parquet.schema))
        self._waiting.clear()


def format_json(record: Any) -> bytes:
    """Return a record as one line of JSON."""
    return json.dumps(record).encode("ascii")


def format_csv(values: Iterable[Any]) -> bytes:
    """Return values as one record of CSV (RFC 4180, UTF-8), without the line end.

    Line breaks within a value stay, quoted. A list becomes its items, separated by semicolons.
    """
    line = io.StringIO()
    csv.writer(line).writerow(map(_format_cell, values))
    return line.getvalue().removesuffix("\r\n").encode("utf-8")


def _format_cell(value: Any) -> Any:
    """Return a value as the writer of CSV takes it."""
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else value
