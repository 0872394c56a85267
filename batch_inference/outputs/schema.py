"""Derive the columns of all rows from the dataclasses of `records`, for files and BigQuery."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import pyarrow

from batch_inference.outputs.records import Prediction, Rejection, Study

TABLES: dict[str, type] = {"predictions": Prediction, "studies": Study, "rejections": Rejection}
"""The classes of rows, by the name of their files and tables."""

_CARRIED = "carried"
_ARROW = {
    str: pyarrow.string(),
    float: pyarrow.float64(),
    int: pyarrow.int64(),
    bool: pyarrow.bool_(),
    bytes: pyarrow.binary(),
    tuple: pyarrow.list_(pyarrow.string()),
}
_BIGQUERY = {str: "STRING", float: "FLOAT64", int: "INT64", bool: "BOOL", tuple: "STRING"}


@dataclasses.dataclass(frozen=True)
class Column:
    """Describes one column.

    Attributes:
      name: of the column.
      kind: str, float, int, bool, bytes, or tuple for several strings.
      nullable: whether a value may be missing.
      description: one line.
    """

    name: str
    kind: type
    nullable: bool
    description: str


def list_columns(row: type, carried: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return the columns of a class of rows, then those carried from a manifest.

    Args:
      row: a dataclass whose fields are `Annotated[type, "description"]`.
      carried: names of the further columns of the manifest.
    """
    hints = typing.get_type_hints(row, include_extras=True)
    own = (
        _column(field.name, hints[field.name])
        for field in dataclasses.fields(row)
        if field.name != _CARRIED
    )
    return (
        *own,
        *(Column(name, str, True, "value of the manifest") for name in carried),
    )


def list_tables(carried: Sequence[str] = ()) -> dict[str, tuple[Column, ...]]:
    """Return the columns of each kind of row; studies carry no columns of a manifest."""
    return {
        name: list_columns(row, () if name == "studies" else carried)
        for name, row in TABLES.items()
    }


def _column(name: str, hint: Any) -> Column:
    kind, description = typing.get_args(hint)
    nullable = isinstance(kind, types.UnionType)
    if nullable:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    return Column(name, typing.get_origin(kind) or kind, nullable, description)


def to_record(row: Any) -> dict[str, Any]:
    """Return a row as a dictionary from column to value, carried columns last."""
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return values | values.pop(_CARRIED, {})


def to_arrow(table: Sequence[Column]) -> pyarrow.Schema:
    """Return the schema for Parquet, with descriptions in the metadata of the fields."""
    return pyarrow.schema(
        [
            pyarrow.field(
                column.name,
                _ARROW[column.kind],
                column.nullable,
                {"description": column.description},
            )
            for column in table
        ]
    )


def to_bigquery(table: Sequence[Column]) -> list[dict[str, str]]:
    """Return the schema for BigQuery, in the form that `bq mk --schema` takes.

    No column is required, as BigQuery adds no required column to a table that holds rows.
    """
    return [
        {
            "name": column.name,
            "type": _BIGQUERY[column.kind],
            "mode": "REPEATED" if column.kind is tuple else "NULLABLE",
            "description": column.description,
        }
        for column in table
    ]
