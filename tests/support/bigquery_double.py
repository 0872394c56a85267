"""Imitate BigQuery on loopback: take the requests of the real clients and keep them, without SQL.

It makes tables, runs load jobs at once by reading their files from a storage emulator, holds rows
against the table's schema as BigQuery would (no unknown column, the right types), and gives out
tokens for `credentials`.
"""

import json
import pathlib
import re
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_PYTHON = {
    "STRING": str,
    "FLOAT64": (float, int),
    "FLOAT": (float, int),
    "INT64": int,
    "INTEGER": int,
    "BOOL": bool,
}


class BigQueryDouble:
    """What the server has been asked and holds.

    Attributes:
      url: where it listens.
      storage: URL of the storage emulator that load jobs read from.
      datasets: names of those that exist.
      tables: schema and rows by `project.dataset.table`.
      jobs: each load job's configuration, in order.
      made: number of tables that were made.
      refused: tables into which every load job fails, and with which text.
    """

    def __init__(self, storage: str):
        self.storage = storage
        self.datasets = {"trial.scores"}
        self.tables: dict[str, dict] = {}
        self.jobs: list[dict] = []
        self.made = 0
        self.refused: dict[str, str] = {}
        self._finished: dict[str, dict] = {}
        self.url = ""

    def credentials(self, path: pathlib.Path) -> pathlib.Path:
        """Write a temporary service-account key whose tokens this server issues."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        account = {
            "type": "service_account",
            "client_email": "double@trial.example",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(account | {"private_key": key.decode(), "project_id": "trial"}))
        return path

    def answer(self, method: str, path: str, body: dict) -> tuple[int, dict]:
        if path == "/token":
            return 200, {"access_token": "x", "expires_in": 3600, "token_type": "Bearer"}
        if found := re.fullmatch(
            r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables(?:/([^/]+))?", path
        ):
            return self._table(method, found[1], found[2], found[3], body)
        if re.fullmatch(r"/bigquery/v2/projects/[^/]+/jobs", path) and method == "POST":
            return self._load(body)
        if found := re.fullmatch(r"/bigquery/v2/projects/[^/]+/jobs/([^/]+)", path):
            return 200, self._finished[found[1]]
        return 404, _error(404, f"the double knows no {method} {path}")

    def _table(
        self, method: str, project: str, dataset: str, table: str | None, body: dict
    ) -> tuple[int, dict]:
        if f"{project}.{dataset}" not in self.datasets:
            return 404, _error(404, f"Not found: Dataset {project}:{dataset}")
        name = f"{project}.{dataset}.{table or body['tableReference']['tableId']}"
        if method == "POST" and name in self.tables:
            return 409, _error(409, f"Already Exists: Table {name}")
        if method == "POST":
            self.made += 1
            self.tables[name] = {"schema": body["schema"], "rows": [], "made": self.made}
        elif name not in self.tables:
            return 404, _error(404, f"Not found: Table {name}")
        reference = dict(zip(("projectId", "datasetId", "tableId"), name.split("."), strict=True))
        return 200, {
            "tableReference": reference,
            "schema": self.tables[name]["schema"],
            "creationTime": str(1000 * self.tables[name].get("made", 0)),
        }

    def _load(self, job: dict) -> tuple[int, dict]:
        identity = job["jobReference"]["jobId"]
        if identity in self._finished:
            return 409, _error(409, f"Already Exists: Job {identity}")
        load = job["configuration"]["load"]
        self.jobs.append(load)
        to = load["destinationTable"]
        table = self.tables.setdefault(
            f"{to['projectId']}.{to['datasetId']}.{to['tableId']}",
            {"schema": load["schema"], "rows": []},
        )
        status: dict = {"state": "DONE"}
        try:
            if to["tableId"] in self.refused:
                raise ValueError(self.refused[to["tableId"]])
            rows = [row for uri in load["sourceUris"] for row in self._rows(uri)]
            table["schema"] = _extended(table["schema"], load)
            for row in rows:
                _check(row, table["schema"])
            table["rows"].extend(rows)
        except ValueError as error:
            status["errorResult"] = {"reason": "invalid", "message": str(error)}
        self._finished[identity] = {
            "id": identity,
            "jobReference": job["jobReference"],
            "status": status,
            "configuration": {"load": load},
        }
        return 200, self._finished[identity]

    def _rows(self, uri: str) -> Iterator[dict]:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        address = (
            f"{self.storage}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
        )
        with urllib.request.urlopen(address, timeout=30) as file:
            yield from map(json.loads, file.read().splitlines())


def _extended(held: dict, load: dict) -> dict:
    names = {field["name"] for field in held["fields"]}
    new = [field for field in load["schema"]["fields"] if field["name"] not in names]
    if new and "ALLOW_FIELD_ADDITION" not in load.get("schemaUpdateOptions", []):
        raise ValueError(f"Provided Schema does not match: no such field {new[0]['name']}")
    return {"fields": [*held["fields"], *new]}


def _check(row: dict, table: dict) -> None:
    fields = {field["name"]: field for field in table["fields"]}
    for name, value in row.items():
        if name not in fields:
            raise ValueError(f"no such field: {name}")
        field = fields[name]
        values = value if field.get("mode") == "REPEATED" else [value]
        for one in values:
            if one is not None and not isinstance(one, _PYTHON[field["type"]]):
                raise ValueError(f"could not convert {one!r} to {field['type']}")


def _error(code: int, message: str) -> dict:
    return {
        "error": {
            "code": code,
            "message": message,
            "errors": [{"reason": "notFound", "message": message}],
        }
    }


@contextmanager
def running(storage: str) -> Iterator[BigQueryDouble]:
    """Yield the double, listening on a free port of loopback."""
    double, lock = BigQueryDouble(storage), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if "json" in (self.headers.get("Content-Type") or "") else {}
            with lock:
                code, content = double.answer(
                    self.command, urllib.parse.urlsplit(self.path).path, body
                )
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
