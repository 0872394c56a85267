"""Rows in every file format: the same values, and files to read even where there are none."""

import csv
import json
import pathlib

import apache_beam as beam
import pyarrow.dataset
import pyarrow.parquet
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference.outputs import row_files, schema
from batch_inference.outputs.records import Prediction

TABLE = schema.list_columns(Prediction, ["ward, east"])


def example(index: int) -> Prediction:
    """Return a row with special characters in each of its texts."""
    columns = {column.name: column for column in TABLE}
    made = {
        name: {
            str: f'ä "{name}",\n{index}',
            float: index / 7 - 1,
            int: index,
            bool: bool(index % 2),
            tuple: (f"a {index}", "b")[: index % 3],
        }[column.kind]
        for name, column in columns.items()
    }
    absent = {name: None for name, column in columns.items() if column.nullable and index % 2}
    carried = made.pop("ward, east")
    absent.pop("ward, east", None)
    return Prediction(**made | absent, carried={"ward, east": carried})


def write(rows: list[Prediction], output: pathlib.Path) -> None:
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        created = pipeline | beam.Create(rows) | beam.Reshuffle()
        created | row_files.WriteRows(str(output), "predictions", TABLE, row_files.FORMATS)
    row_files.move_into_place(str(output))


@pytest.fixture(scope="module")
def expected() -> list[dict]:
    return [schema.to_record(example(index)) for index in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("rows")
    write([example(index) for index in range(40)], output)
    return output


def test_nothing_else_is_left(folder):
    assert {row_files.parse_name(path.name) for path in folder.iterdir()} == {
        ("predictions", name) for name in row_files.FORMATS
    }


def test_json_lines(folder, expected):
    rows = [
        json.loads(line) for path in folder.glob("predictions.jsonl-*-of-*") for line in path.open()
    ]
    assert sorted(rows, key=lambda row: row["logit"]) == expected
    assert list(rows[0]) == [column.name for column in TABLE]


def test_csv(folder, expected):
    rows = []
    for path in folder.glob("predictions.csv-*-of-*"):
        with path.open(newline="", encoding="utf-8") as file:
            rows.extend(csv.DictReader(file))
    texts = [
        {
            name: ";".join(value)
            if isinstance(value, list)
            else ""
            if value is None
            else str(value)
            for name, value in row.items()
        }
        for row in expected
    ]
    assert sorted(rows, key=lambda row: float(row["logit"])) == texts


def test_parquet_as_one_dataset_with_types_and_descriptions(folder, expected):
    files = sorted(str(path) for path in folder.glob("predictions-*-of-*.parquet"))
    read = pyarrow.dataset.dataset(files).to_table()
    assert sorted(read.to_pylist(), key=lambda row: row["logit"]) == expected
    assert read.schema == schema.to_arrow(TABLE)
    assert (
        pyarrow.parquet.read_schema(files[0]).field("uri").metadata[b"description"]
        == TABLE[0].description.encode()
    )
    assert (
        pyarrow.parquet.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    )


def test_of_no_rows_every_format_leaves_a_readable_file(tmp_path):
    write([], tmp_path)
    assert [path.read_bytes() for path in tmp_path.glob("predictions.jsonl-*")] == [b""]
    (header,) = [path.read_text().splitlines() for path in tmp_path.glob("predictions.csv-*")]
    assert header == [",".join(column.name for column in TABLE[:-1]) + ',"ward, east"']
    (path,) = tmp_path.glob("predictions-*.parquet")
    read = pyarrow.parquet.read_table(path)
    assert read.num_rows == 0 and read.schema == schema.to_arrow(TABLE)
