"""Imitate Dataflow's REST interface on loopback: keep the job requests that Beam sends, and run the
jobs.

A job is done from what was staged and from nothing else: its graph, in a process that sees the
staged source distribution instead of this working tree. Only where Dataflow would start containers,
Beam's embedded runner works.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.bucket_server import BucketServer


class DataflowDouble:
    """`requests` are the jobs asked for, as JSON; `said` is what the worker of the last one
    said.
    """

    def __init__(self, buckets: BucketServer, folder: pathlib.Path):
        self.requests: list[dict] = []
        self.said = ""
        self._buckets = buckets
        self._folder = folder
        self._state = "JOB_STATE_RUNNING"
        self._watched = threading.Event()
        handler = type("Handler", (_Handler,), {"double": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def job(self) -> dict:
        return {"id": "job-1", "currentState": self._state, "createTime": "2026-01-01T00:00:00Z"}

    def messages(self) -> dict:
        self._watched.set()
        if self._state != "JOB_STATE_FAILED":
            return {}
        said = {
            "id": "1",
            "time": "2026-01-01T00:00:01Z",
            "messageImportance": "JOB_MESSAGE_ERROR",
            "messageText": self.said,
        }
        return {"jobMessages": [said]}

    def start(self, request: dict) -> None:
        self.requests.append(request)
        self._state = "JOB_STATE_RUNNING"
        self._watched.clear()
        threading.Thread(target=self._work, args=(request,), daemon=True).start()

    def _work(self, request: dict) -> None:
        try:
            done = self._do(request)
        except Exception as error:  # else whoever watches the job would wait for ever
            done, self.said = False, f"the double failed: {error!r}"
        if not done:
            # Beam doesn't ask why a job failed that had failed before Beam began to watch it.
            self._watched.wait()
        self._state = "JOB_STATE_DONE" if done else "JOB_STATE_FAILED"

    def _do(self, request: dict) -> bool:
        bucket, _, graph = request["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"][
            len("gs://") :
        ].partition("/")
        place = graph.rpartition("/")[0]
        staged = {
            name[len(place) + 1 :]: content
            for name, content in self._buckets.objects(bucket, place).items()
        }
        for name, content in staged.items():
            (self._folder / name).write_bytes(content)
        if "workflow.tar.gz" not in staged:
            self.said = "a job without sources needs a container"
            return False
        shutil.unpack_archive(
            self._folder / "workflow.tar.gz", self._folder
        )  # tarfile's filters came with 3.11.4
        source_root = next(path for path in self._folder.iterdir() if path.is_dir())
        worker = subprocess.run(
            [
                sys.executable,
                str(pathlib.Path(__file__).with_name("run_graph.py")),
                self._folder / pathlib.Path(graph).name,
            ],
            env=os.environ | self._buckets.environment | {"PYTHONPATH": str(source_root)},
            cwd=self._folder,
            capture_output=True,
            text=True,
        )
        self.said = worker.stdout + worker.stderr
        return worker.returncode == 0


class _Handler(BaseHTTPRequestHandler):
    double: DataflowDouble

    def do_GET(self) -> None:
        asked = self.path.partition("?")[0].rpartition("/")[2]
        self._answer(
            {"messages": self.double.messages, "metrics": dict}.get(asked, self.double.job)()
        )

    def do_POST(self) -> None:
        self.double.start(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(self.double.job())

    def _answer(self, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def running(buckets: BucketServer, folder: pathlib.Path) -> Iterator[DataflowDouble]:
    """Start the double; jobs run in `folder`."""
    double = DataflowDouble(buckets, folder)
    try:
        yield double
    finally:
        double.close()
