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

from batch_inference.composite import composite
from batch_inference.outputs import schema
from batch_inference.outputs.schema import Column
from batch_inference.storage import filesystem, storage_errors

FORMATS = ("jsonl", "csv", "parquet")
_STAGED = "beam-temp-rows"
"""Folder of local files until the run ends. Beam lists the folder of its files several times, which
is slow in the output with all its pictures."""
_SHARD = r"(?:-\d{5,}-of-\d{5,})?"
_FILE = re.compile(rf"({'|'.join(schema.TABLES)})(?:\.(jsonl|csv){_SHARD}|{_SHARD}\.(parquet))")
_MIME_TYPES = {
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
SORTED_BYTES = 1 << 25
"""Larger files keep the order in which their rows were made: to sort is to hold them in memory."""


@composite
def WriteRows(
    rows: beam.PCollection, output: str, name: str, table: Sequence[Column], formats: Sequence[str]
) -> None:
    """Write predictions, studies or rejections as rows in each format.

    The files are `NAME.jsonl-SSSSS-of-NNNNN`, `NAME.csv-SSSSS-of-NNNNN` and, as readers of Parquet
    go by the ending, `NAME-SSSSS-of-NNNNN.parquet`. Without rows they are empty, or hold a header.
    Call `move_into_place` once the pipeline has ended: it names a file without others
    `NAME.jsonl`, `NAME.csv` or `NAME.parquet`.

    Args:
      output: folder of the run.
      name: that of the files.
      formats: some of `FORMATS`.
    """
    prefix = filesystem.join(_stage(output), name)
    columns = [column.name for column in table]
    records = rows | "Record" >> beam.Map(schema.to_record)
    if "jsonl" in formats:
        lines = records | "JSON" >> beam.Map(format_json).with_output_types(bytes)
        lines | "Write JSON" >> beam.io.WriteToText(f"{prefix}.jsonl", coder=BytesCoder())
    if "csv" in formats:
        lines = records | "CSV" >> beam.Map(
            lambda record: format_csv(map(record.get, columns))
        ).with_output_types(bytes)
        lines | "Write CSV" >> beam.io.WriteToText(
            f"{prefix}.csv", coder=BytesCoder(), header=format_csv(columns)
        )
    if "parquet" in formats:
        # A writer holds a row group in memory: 16 MiB.
        records | "Write Parquet" >> beam.io.WriteToParquet(
            prefix,
            schema.to_arrow(table),
            row_group_buffer_size=1 << 24,
            codec="zstd",
            file_name_suffix=".parquet",
        )


def _stage(output: str) -> str:
    """Return the folder of the files until the run ends."""
    return output if filesystem.is_remote(output) else filesystem.join(output, _STAGED)


def move_into_place(output: str) -> None:
    """Move the files that `WriteRows` wrote into the output, once the pipeline has ended.

    A file that holds all rows of its kind gets a name without numbers and, up to `SORTED_BYTES`,
    its rows in the order of their paths.
    """
    staged = _stage(output)
    files: dict[tuple[str, str], list[str]] = {}
    for file in filesystem.names(staged):
        if kind := parse_name(file):
            files.setdefault(kind, []).append(file)
    for (name, format_), shards in files.items():
        if len(shards) == 1:
            _write_sorted(output, staged, shards[0], name, format_)
        elif staged != output:
            for shard in shards:
                pathlib.Path(staged, shard).replace(pathlib.Path(output, shard))
    if staged != output:
        filesystem.delete(staged)


def _write_sorted(output: str, staged: str, shard: str, name: str, format_: str) -> None:
    """Give the only file of some rows its plain name, and its rows their order."""
    source, target = filesystem.join(staged, shard), filesystem.join(output, f"{name}.{format_}")
    if not filesystem.is_remote(output) and pathlib.Path(source).stat().st_size > SORTED_BYTES:
        pathlib.Path(source).replace(target)
        return
    try:
        contents = filesystem.read(source)
    except storage_errors.TooLargeError:
        return  # in a bucket, where a new name is a copy
    if len(contents) <= SORTED_BYTES:
        contents = _SORT[format_](contents, "study" if name == "studies" else "uri")
    filesystem.write(target, contents, _MIME_TYPES[format_])
    filesystem.delete(source)


def _sort_json(contents: bytes, key: str) -> bytes:
    def find_place(line: bytes) -> tuple[str, int]:
        row = json.loads(line)
        return row[key], row.get("frame") or 0

    lines: list[bytes] = contents.splitlines(keepends=True)
    lines.sort(key=find_place)
    return b"".join(lines)


def _sort_csv(contents: bytes, key: str) -> bytes:
    header, *rows = csv.reader(io.StringIO(contents.decode(), newline=""))
    column, frame = header.index(key), header.index("frame") if "frame" in header else None
    rows.sort(key=lambda row: (row[column], int(row[frame] or 0) if frame is not None else 0))
    return b"".join(format_csv(row) + b"\n" for row in [header, *rows])


def _sort_parquet(contents: bytes, key: str) -> bytes:
    table = pyarrow.parquet.read_table(io.BytesIO(contents))
    keys = [(name, "ascending") for name in (key, "frame") if name in table.column_names]
    written = io.BytesIO()
    pyarrow.parquet.write_table(table.sort_by(keys), written, compression="zstd")
    return written.getvalue()


_SORT = {"jsonl": _sort_json, "csv": _sort_csv, "parquet": _sort_parquet}


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
                with storage_errors.translate_errors():
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
