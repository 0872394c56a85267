"""Google Cloud Storage through its own client: one per process, so that a file costs one request on a connection that is open.

Beam's file system makes a client for every file, and two requests. Its credentials and options are used all the same. What the
storage is too busy for (429, 5xx), what it does not answer in time and what is cut off is tried again, ever later and at
random moments, for two minutes; a file appears whole or not at all.
"""

import contextlib
import functools
import http
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.auth.exceptions
import requests.exceptions
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core import exceptions
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

SCHEME = "gs://"
_CONNECTIONS = 64
_SECONDS = (10.0, 60.0)
"""To connect, and between two bytes."""


class LimitError(OSError):
    """The object is larger than what was allowed."""


def read(uri: str, limit: int) -> bytes:
    """The content of an object, checked against its checksum.

    Raises:
      LimitError: it has more than `limit` bytes; no more are fetched.
      GoogleAPICallError: as the storage answers.
    """
    contents = _Limited(limit)
    _blob(uri).download_to_file(contents, retry=DEFAULT_RETRY, timeout=_SECONDS)
    return contents.getvalue()


def write(uri: str, contents: bytes, mime_type: str) -> None:
    """Writes a whole object over whatever was there."""
    _blob(uri).upload_from_string(
        contents, mime_type, retry=DEFAULT_RETRY, timeout=_SECONDS, checksum="crc32c"
    )


def exists(uri: str) -> bool:
    """Whether there is an object of this name; a bucket is none."""
    is_bucket = "/" not in uri.removeprefix(SCHEME)
    return not is_bucket and _blob(uri).exists(retry=DEFAULT_RETRY, timeout=_SECONDS)


def names(folder: str) -> list[str]:
    """What lies directly in a folder: objects, and folders in which there are some."""
    bucket, prefix = gcsio.parse_gcs_path(f"{folder}/", object_optional=True)
    listing = _client().list_blobs(
        bucket, prefix=prefix, delimiter="/", retry=DEFAULT_RETRY, timeout=_SECONDS
    )
    found = {blob.name for blob in listing} | set(listing.prefixes)
    return sorted({name[len(prefix) :].rstrip("/") for name in found} - {""})


def delete(uri: str) -> None:
    """Deletes an object, and all whose names it is a folder of."""
    with ThreadPoolExecutor(_CONNECTIONS // 2) as pool:
        for _ in pool.map(_delete, _tree(uri)):
            pass


def sentence(error: Exception) -> str | None:
    """What the storage said, without the address; None where it was not the storage that spoke."""
    if isinstance(error, exceptions.RetryError):
        return f"the storage did not do it in {DEFAULT_RETRY.timeout:.0f} seconds, at last: {sentence(error.cause) or error.cause}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection, or one that broke off"
    code = error.code if isinstance(error, exceptions.GoogleAPICallError) else None
    if isinstance(error, InvalidResponse):
        code = error.response.status_code
    return f"the storage answers {int(code)} {http.HTTPStatus(code).phrase}" if code else None


def is_passing(error: Exception) -> bool:
    """Whether the storage may well answer otherwise later: it was busy, down, or out of reach."""
    if isinstance(error, exceptions.RetryError):
        return True
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and error.retryable:
        return True
    # What Google's library would try again itself.
    return DEFAULT_RETRY._predicate(error)


def is_hopeless(error: Exception) -> bool:
    """Whether the storage will take nothing else either: two minutes without success, no access, no such bucket."""
    return isinstance(
        error,
        exceptions.RetryError
        | exceptions.Forbidden
        | exceptions.Unauthorized
        | exceptions.NotFound,
    )


class _Limited(io.BytesIO):
    def __init__(self, limit: int):
        super().__init__()
        self._limit = limit

    def write(self, part: Any) -> int:
        if self.tell() + len(part) > self._limit:
            raise LimitError(f"expected at most {self._limit} bytes, the object has more")
        return super().write(part)


@functools.cache
def _client() -> Client:
    client = gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions([]))
    adapter = HTTPAdapter(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
    client._http.mount("https://", adapter)
    client._http.mount("http://", adapter)
    return client


def _blob(uri: str) -> Blob:
    bucket, name = gcsio.parse_gcs_path(uri)
    return _client().bucket(bucket).blob(name)


def _tree(uri: str) -> Iterator[Blob]:
    bucket, name = gcsio.parse_gcs_path(uri)
    yield _blob(uri)
    yield from _client().list_blobs(
        bucket, prefix=f"{name}/", retry=DEFAULT_RETRY, timeout=_SECONDS
    )


def _delete(blob: Blob) -> None:
    # Not found: it was never there, or it went at an attempt whose answer was lost.
    with contextlib.suppress(exceptions.NotFound):
        blob.delete(retry=DEFAULT_RETRY, timeout=_SECONDS)
