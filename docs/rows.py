"""Writes the pages on rows: docs/rows.md, and the table schemas of docs/bigquery/.

python docs/rows.py
"""

import json
import pathlib
from collections.abc import Sequence

from batch_inference.outputs import schema
from batch_inference.outputs.records import PackedCam

DOCS = pathlib.Path(__file__).resolve().parent
_TYPES = {
    str: "string",
    float: "double",
    int: "int64",
    bool: "boolean",
    bytes: "binary",
    tuple: "strings",
}
_HEAD = """# Rows

These are the columns of `predictions`, `studies` and `rejections` in every format, and of `cams`
with `--cam_store=parquet`. `python docs/rows.py` writes this page from
`batch_inference/outputs/records.py`. Missing values are `null` in JSONL, Parquet and BigQuery, and
empty in CSV. [exit-codes.md](exit-codes.md#reason-codes) explains the codes of `reason`.
"""


def documents() -> dict[str, str]:
    """Return the content of each file by its path below docs/."""
    tables = schema.list_tables()
    sections = [
        _HEAD,
        *(_section(name, table) for name, table in tables.items()),
        _section("cams", schema.list_columns(PackedCam)),
    ]
    schemas = {
        f"bigquery/{name}.json": json.dumps(schema.to_bigquery(table), indent=2) + "\n"
        for name, table in tables.items()
    }
    return {"rows.md": "\n".join(sections), **schemas}


def _section(name: str, table: Sequence[schema.Column]) -> str:
    lines = [
        f"| {c.name} | {_TYPES[c.kind]} | {'yes' if c.nullable else 'no'} | {c.description} |"
        for c in table
    ]
    return (
        "\n".join([f"## {name}\n", "| column | type | null | |", "|---|---|---|---|", *lines])
        + "\n"
    )


if __name__ == "__main__":
    for path, content in documents().items():
        (DOCS / path).write_text(content, encoding="utf-8")
