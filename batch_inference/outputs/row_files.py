"""Write and read the files of rows: JSON lines, CSV and Parquet, with one schema."""

import contextlib
import csv
import io
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow
import pyarrow.parquet

from batch_inference.composite import composite
from batch_inference.outputs import row_shards, schema
from batch_inference.outputs.schema import Column
from batch_inference.storage import filesystem, storage_errors
from trainer.errors import DataError

FORMATS = ("jsonl", "csv", "parquet")
_STAGED = "beam-temp-rows"
"""Folder of files that are not finished, and of all local files until the run ends."""
_SHARD = r"(?:-\d{5,}-of-\d{5,})?"
NAME = re.compile(rf"({'|'.join(schema.TABLES)})(?:\.(jsonl|csv){_SHARD}|{_SHARD}\.(parquet))")
_NEEDED: dict[str, dict[str, type]] = {
    "predictions": {"uri": str, "label": str, "probability": float, "study": str},
    "studies": {"study": str, "label": str, "probability": float, "images": int},
    "rejections": {"uri": str, "reason": str, "detail": str},
}
"""The values that readers of rows rely on, by the kind of rows."""
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
    staged = filesystem.join(output, _STAGED)
    prefix = filesystem.join(_stage(output), name)
    shards = rows | "Write" >> beam.ParDo(row_shards.WriteShards(staged, table, formats))
    (
        rows.pipeline
        | beam.Impulse()
        | "Name"
        >> beam.Map(
            lambda _, shards: row_shards.name_shards(shards, prefix, staged, table, formats),
            beam.pvalue.AsIter(shards),
        )
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
    filesystem.delete(filesystem.join(output, _STAGED))


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
    filesystem.write(target, contents, row_shards.MIME_TYPES[format_])
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
    return b"".join(row_shards.format_csv(row) + b"\n" for row in [header, *rows])


def _sort_parquet(contents: bytes, key: str) -> bytes:
    table = pyarrow.parquet.read_table(io.BytesIO(contents))
    keys = [(name, "ascending") for name in (key, "frame") if name in table.column_names]
    written = io.BytesIO()
    pyarrow.parquet.write_table(table.sort_by(keys), written, compression="zstd")
    return written.getvalue()


_SORT = {"jsonl": _sort_json, "csv": _sort_csv, "parquet": _sort_parquet}


def parse_name(file: str) -> tuple[str, str] | None:
    """Return the kind of rows and the format of a file by its name; None for any other file."""
    found = NAME.fullmatch(file)
    return (found[1], found[2] or found[3]) if found else None


def read(output: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished run, from whichever format is there.

    Rows from CSV hold strings, and "" where a value is missing.

    Raises:
      DataError: there is no file of these rows, or one is damaged.
      StorageError: a file cannot be read.
    """
    files = filesystem.names(output)
    for format_, reader in (("jsonl", _json_rows), ("parquet", _parquet_rows), ("csv", _csv_rows)):
        if shards := sorted(file for file in files if parse_name(file) == (name, format_)):
            for shard in shards:
                uri = filesystem.join(output, shard)
                with storage_errors.translate_errors(), _explain_damage(uri):
                    for row in reader(uri):
                        _check_row(row, name)
                        yield row
            return
    raise DataError(f"{output} holds no {name}.jsonl, .parquet or .csv; score these images again")


@contextlib.contextmanager
def _explain_damage(uri: str) -> Iterator[None]:
    """Raise what a damaged file of rows causes as `DataError`."""
    try:
        yield
    except (
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        csv.Error,
        pyarrow.ArrowException,
    ) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{uri} is damaged ({reason}); score these images again") from error


def _check_row(row: Any, name: str) -> None:
    """Raise `TypeError`, `ValueError` or `KeyError` where a row lacks a value that all rows have.

    Numbers may be strings, as in CSV.
    """
    if not isinstance(row, dict):
        raise TypeError(f"expected a row with names, found {row!r:.40}")
    for column, kind in _NEEDED[name].items():
        if kind is str and not isinstance(row[column], str):
            raise TypeError(f"{column} is {row[column]!r:.40}, expected text")
        kind(row[column])
    int(row.get("frame") or 0)


def read_frame(row: Mapping[str, Any]) -> int | None:
    """Return the frame of a row from any format; None where the whole file is scored."""
    return int(row["frame"]) if row.get("frame") not in (None, "") else None


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
