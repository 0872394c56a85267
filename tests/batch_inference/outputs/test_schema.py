"""One schema, and everything that is told of it."""

import importlib.util
import pathlib

import pyarrow as pa
import pytest
from google.cloud import bigquery

from batch_inference.outputs import schema

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"


def script(name: str):
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def documents() -> dict[str, str]:
    return script("rows").documents()


def test_the_page_on_scale_holds_its_own_arithmetic():
    assert (DOCS / "scale.md").read_text(encoding="utf-8") == script("scale").page(), (
        "run: python docs/scale.py"
    )


@pytest.mark.parametrize("path", sorted(documents()))
def test_the_documents_say_what_the_schema_says(path):
    assert (DOCS / path).read_text(encoding="utf-8") == documents()[path], (
        "run: python docs/rows.py"
    )


def test_columns_are_the_fields_with_their_types():
    by_name = {
        column.name: column
        for column in schema.list_columns(schema.TABLES["predictions"], ["ward", "age"])
    }
    assert list(by_name)[:3] == ["uri", "label", "probability"] and list(by_name)[-2:] == [
        "ward",
        "age",
    ]
    assert (by_name["uri"].kind, by_name["uri"].nullable) == (str, False)
    assert (by_name["cam"].kind, by_name["cam"].nullable) == (str, True)
    assert (by_name["probability"].kind, by_name["probability"].nullable) == (float, False)
    assert (by_name["ward"].kind, by_name["ward"].nullable) == (str, True)


@pytest.mark.parametrize("name", sorted(schema.TABLES))
def test_every_column_has_one_line_of_description(name):
    for column in schema.list_columns(schema.TABLES[name]):
        assert (
            column.description and "\n" not in column.description and "|" not in column.description
        )


def test_arrow_takes_what_may_be_missing_and_refuses_what_may_not():
    studies = schema.to_arrow(schema.list_columns(schema.TABLES["studies"]))
    assert studies.field("images").type == pa.int64() and not studies.field("images").nullable
    predictions = schema.to_arrow(schema.list_columns(schema.TABLES["predictions"]))
    assert predictions.field("cam").nullable and predictions.field("logit").type == pa.float64()


@pytest.mark.parametrize("name", sorted(schema.TABLES))
def test_googles_client_reads_the_bigquery_schema(name):
    table = schema.list_columns(schema.TABLES[name])
    fields = [bigquery.SchemaField.from_api_repr(field) for field in schema.to_bigquery(table)]
    assert [field.name for field in fields] == [column.name for column in table]
    assert {field.field_type for field in fields} <= {
        "STRING",
        "FLOAT64",
        "INT64",
        "BOOL",
        "FLOAT",
        "INTEGER",
        "BOOLEAN",
    }
