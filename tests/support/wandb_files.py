"""Read the files that Weights & Biases writes offline: protocol buffers in LevelDB's log format."""

import json
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FULL, _LAST = 1, 4


def read_runs(folder: pathlib.Path) -> list[list[wandb_internal_pb2.Record]]:
    """Return the records of each call of a run in `folder`, the oldest first."""
    paths = folder.glob("wandb/offline-run-*/*.wandb")
    calls = [list(_read_records(path)) for path in paths]
    return sorted(calls, key=lambda call: _get_run(call).start_time.ToNanoseconds())


def describe(calls: list[list[wandb_internal_pb2.Record]]) -> dict[str, Any]:
    """Return what the calls of one run say together.

    These are ids, settings, rows, summary, names of the artifact's files and their local copies.
    """
    records = [record for call in calls for record in call]
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    files: set[str] = set()
    copies: set[pathlib.Path] = set()
    for record in records:
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("history"):
            items = record.history.item
            rows.append({_name(item): json.loads(item.value_json) for item in items})
        summary |= {_name(item): json.loads(item.value_json) for item in record.summary.update}
        files |= {entry.path for entry in record.artifact.manifest.contents}
        copies |= {pathlib.Path(entry.local_path) for entry in record.artifact.manifest.contents}
    return {
        "ids": {_get_run(call).run_id for call in calls},
        "config": config,
        "rows": rows,
        "summary": summary,
        "artifact": files,
        "copies": copies,
        "exit_codes": [record.exit.exit_code for record in records if record.HasField("exit")],
    }


def _get_run(call: list[wandb_internal_pb2.Record]) -> wandb_internal_pb2.RunRecord:
    return next(record.run for record in call if record.HasField("run"))


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _read_records(path: pathlib.Path) -> Iterator[wandb_internal_pb2.Record]:
    """Yield the records of a file, whose pieces carry checksum, length and kind."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    at, whole = 7, b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_FULL, _LAST):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""
