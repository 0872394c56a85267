"""Rows in every file format: the same values, and files to read even where there are none."""

import csv
import dataclasses
import json
import pathlib
import random

import apache_beam as beam
import pyarrow.dataset
import pyarrow.parquet
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference.outputs import row_files, row_shards, schema
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
    rows = [json.loads(line) for path in folder.glob("predictions.jsonl*") for line in path.open()]
    assert sorted(rows, key=lambda row: row["logit"]) == expected
    assert list(rows[0]) == [column.name for column in TABLE]


def test_csv(folder, expected):
    rows = []
    for path in folder.glob("predictions.csv*"):
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
    files = sorted(str(path) for path in folder.glob("predictions*.parquet"))
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


@pytest.fixture
def shuffled(tmp_path) -> pathlib.Path:
    """Return a folder with one unsorted file in each format; two frames share a URI."""
    rows = [example(index) for index in range(40)]
    rows[7] = dataclasses.replace(rows[6], frame=11)
    rows[6] = dataclasses.replace(rows[6], frame=2)
    random.Random(0).shuffle(rows)
    staged = tmp_path / "beam-temp-rows"
    staged.mkdir()
    columns = [column.name for column in TABLE]
    records = [schema.to_record(row) for row in rows]
    lines = {
        "jsonl": [row_shards.format_json(record) for record in records],
        "csv": [row_shards.format_csv(map(record.get, columns)) for record in records],
    }
    lines["csv"].insert(0, row_shards.format_csv(columns))
    for name, of_format in lines.items():
        file = staged / f"predictions.{name}-00000-of-00001"
        file.write_bytes(b"".join(line + b"\n" for line in of_format))
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(records, schema.to_arrow(TABLE)),
        staged / "predictions-00000-of-00001.parquet",
    )
    return tmp_path


def test_one_file_has_a_plain_name_and_its_rows_in_the_order_of_paths_and_frames(shuffled):
    before = (shuffled / "beam-temp-rows" / "predictions.csv-00000-of-00001").read_bytes()
    row_files.move_into_place(str(shuffled))
    assert {path.name for path in shuffled.iterdir()} == {
        "predictions.jsonl",
        "predictions.csv",
        "predictions.parquet",
    }
    lines = [json.loads(line) for line in (shuffled / "predictions.jsonl").open()]
    places = [(row["uri"], row["frame"] or 0) for row in lines]
    assert places == sorted(places) and len(set(places)) == 40
    assert pyarrow.parquet.read_table(shuffled / "predictions.parquet").to_pylist() == lines
    with (shuffled / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["uri"], int(row["frame"] or 0)) for row in csv.DictReader(file)] == places
    after = (shuffled / "predictions.csv").read_bytes()
    assert sorted(after) == sorted(before), "values are the same, byte for byte"
    assert [(row["uri"], row["frame"]) for row in row_files.read(str(shuffled), "predictions")] == [
        (row["uri"], row["frame"]) for row in lines
    ]


def test_a_large_file_has_a_plain_name_and_several_keep_their_numbers(shuffled, monkeypatch):
    monkeypatch.setattr(row_files, "SORTED_BYTES", 1000)
    staged = shuffled / "beam-temp-rows"
    before = (staged / "predictions.jsonl-00000-of-00001").read_bytes()
    for number in range(2):
        (staged / f"studies.csv-0000{number}-of-00002").write_bytes(b"study\nb\na\n")
    row_files.move_into_place(str(shuffled))
    assert (shuffled / "predictions.jsonl").read_bytes() == before
    for number in range(2):
        shard = shuffled / f"studies.csv-0000{number}-of-00002"
        assert shard.read_bytes() == b"study\nb\na\n"


def test_of_no_rows_every_format_leaves_a_readable_file(tmp_path):
    write([], tmp_path)
    assert [path.read_bytes() for path in tmp_path.glob("predictions.jsonl")] == [b""]
    (header,) = [path.read_text().splitlines() for path in tmp_path.glob("predictions.csv")]
    assert header == [",".join(column.name for column in TABLE[:-1]) + ',"ward, east"']
    (path,) = tmp_path.glob("predictions.parquet")
    read = pyarrow.parquet.read_table(path)
    assert read.num_rows == 0 and read.schema == schema.to_arrow(TABLE)
