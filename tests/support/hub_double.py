"""A stand-in for the Hugging Face Hub: what its real client asks for to push and to pull a model.

No Hub can be reached here. Repositories lie in memory; each commit replaces the whole content.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator


class HubDouble:
    """Repositories by name; a commit is a mapping from paths to contents, under its id.

    With `cuts_connections`, no file arrives whole.
    """

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.requests: list[str] = []
        self.cuts_connections = False
        self.address = ""

    def commit(self, name: str, added: dict[str, bytes]) -> str:
        history = self.commits.setdefault(name, [])
        content = {**(history[-1][1] if history else {}), **added}
        digest = hashlib.sha1(repr((len(history), sorted(content.items()))).encode()).hexdigest()
        history.append((digest, content))
        return digest

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.commits.get(name) or []
        if revision == "main":
            return history[-1] if history else None
        return next((commit for commit in history if commit[0].startswith(revision)), None)


@contextlib.contextmanager
def running() -> Iterator[HubDouble]:
    hub = HubDouble()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _cut(self, body: bytes, **headers: str) -> None:
            """Send the head of an answer and a part of its body, and close the connection."""
            self.send_response(200)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body) + 1))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def _refuse(self, code: str) -> None:
            self._answer(b"{}", 404, X_Error_Code=code, X_Error_Message=f"{code} of the stand-in")

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
                self._describe(found[1], found[2] or "revision", found[3] or "main")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._send_file(found[1], found[2], found[3])
            else:
                self._refuse("EntryNotFound")

        do_HEAD = do_GET

        def _describe(self, name: str, kind: str, revision: str) -> None:
            if name not in hub.commits:
                return self._refuse("RepoNotFound")
            if (commit := hub.find(name, revision)) is None:
                return self._refuse("RevisionNotFound")
            digest, content = commit
            if kind == "tree":
                body = [
                    {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                    for path, data in content.items()
                ]
            else:
                body = {
                    "id": name,
                    "sha": digest,
                    "siblings": [{"rfilename": path} for path in content],
                }
            self._answer(json.dumps(body).encode(), Content_Type="application/json")

        def _send_file(self, name: str, revision: str, path: str) -> None:
            commit = hub.find(name, revision)
            if commit is None or path not in commit[1]:
                return self._refuse("EntryNotFound")
            digest, content = commit
            headers = {"ETag": f'"{_oid(content[path])}"', "X_Repo_Commit": digest}
            if hub.cuts_connections and self.command == "GET":
                return self._cut(content[path], **headers)
            self._answer(content[path], **headers)

        def do_POST(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            hub.requests.append(f"POST {path}")
            body = self._read_body()
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'user'}/{asked['name']}"
                hub.commits.setdefault(name, [])
                answer = {"url": f"{hub.address}/{name}", "name": name}
            elif path == "/api/validate-yaml":
                answer = {"errors": [], "warnings": []}
            elif path.endswith("/preupload/main"):
                files = json.loads(body)["files"]
                answer = {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in files
                    ]
                }
            else:
                name = path.removeprefix("/api/models/").removesuffix("/commit/main")
                lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                added = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                digest = hub.commit(name, added)
                answer = {
                    "success": True,
                    "commitOid": digest,
                    "commitUrl": f"{hub.address}/{name}/commit/{digest}",
                    "hookOutput": "",
                }
            self._answer(json.dumps(answer).encode(), Content_Type="application/json")

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
