"""Writes and reads the files of rows: JSON lines, CSV and Parquet, with one schema."""

import csv
import io
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow.parquet
from apache_beam.coders import BytesCoder

from batch_inference.outputs import schema
from batch_inference.outputs.schema import Column
from batch_inference.storage import filesystem

FORMATS = ("jsonl", "csv", "parquet")
_STAGED = "beam-temp-rows"
"""Folder of local files until the run ends. Beam lists the folder of its files several times, which
is slow in the output with all its pictures."""
_SHARD = r"-\d{5,}-of-\d{5,}"
_FILE = re.compile(rf"({'|'.join(schema.TABLES)})(?:\.(jsonl|csv){_SHARD}|{_SHARD}\.(parquet))")


class WriteRows(beam.PTransform):
    """Writes predictions, studies or rejections as rows in each format.

    The files are `NAME.jsonl-SSSSS-of-NNNNN`, `NAME.csv-SSSSS-of-NNNNN` and, as readers of Parquet
    go by the ending, `NAME-SSSSS-of-NNNNN.parquet`. Without rows they are empty, or hold a header.
    Call `move_into_place` once the pipeline has ended.
    """

    def __init__(self, output: str, name: str, table: Sequence[Column], formats: Sequence[str]):
        """Take the folder, the files' name, the columns, and some of `FORMATS`."""
        super().__init__()
        self._prefix = filesystem.join(
            output if filesystem.is_remote(output) else filesystem.join(output, _STAGED), name
        )
        self._table = tuple(table)
        self._formats = formats

    def expand(self, rows: beam.PCollection) -> None:
        columns = [column.name for column in self._table]
        records = rows | "Record" >> beam.Map(schema.to_record)
        if "jsonl" in self._formats:
            lines = records | "JSON" >> beam.Map(format_json).with_output_types(bytes)
            lines | "Write JSON" >> beam.io.WriteToText(f"{self._prefix}.jsonl", coder=BytesCoder())
        if "csv" in self._formats:
            lines = records | "CSV" >> beam.Map(
                lambda record: format_csv(map(record.get, columns))
            ).with_output_types(bytes)
            lines | "Write CSV" >> beam.io.WriteToText(
                f"{self._prefix}.csv", coder=BytesCoder(), header=format_csv(columns)
            )
        if "parquet" in self._formats:
            # A writer holds a row group in memory: 16 MiB.
            records | "Write Parquet" >> beam.io.WriteToParquet(
                self._prefix,
                schema.to_arrow(self._table),
                row_group_buffer_size=1 << 24,
                codec="zstd",
                file_name_suffix=".parquet",
            )


def move_into_place(output: str) -> None:
    """Move the files that `WriteRows` wrote into the output, once the pipeline has ended."""
    if filesystem.is_remote(output):
        return
    staged = pathlib.Path(output, _STAGED)
    for file in staged.iterdir():
        if parse_name(file.name):
            file.replace(staged.parent / file.name)
    filesystem.delete(str(staged))


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


def parse_name(file: str) -> tuple[str, str] | None:
    """Return the kind of rows and the format of a file by its name; None for any other file."""
    found = _FILE.fullmatch(file)
    return (found[1], found[2] or found[3]) if found else None


def read(output: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished run, from whichever format is there.

    Rows from CSV hold strings, and "" where a value is missing.

    Raises:
      StorageError: a file cannot be read.
    """
    files = filesystem.names(output)
    for format_, reader in (("jsonl", _json_rows), ("parquet", _parquet_rows), ("csv", _csv_rows)):
        if shards := sorted(file for file in files if parse_name(file) == (name, format_)):
            for shard in shards:
                with filesystem.translate_errors():
                    yield from reader(filesystem.join(output, shard))
            return


def _json_rows(uri: str) -> Iterator[dict[str, Any]]:
    with filesystem.open_text(uri) as lines:
        yield from map(json.loads, lines)


def _csv_rows(uri: str) -> Iterator[dict[str, Any]]:
    with filesystem.open_text(uri) as lines:
        yield from csv.DictReader(lines)


def _parquet_rows(uri: str) -> Iterator[dict[str, Any]]:
    with pyarrow.parquet.ParquetFile(io.BytesIO(filesystem.read(uri))) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
