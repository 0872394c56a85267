"""Read and write objects of Google Cloud Storage through one client for each process.

An object costs one request on an open connection. Beam's file system makes a client for each file
and needs two requests; its credentials and options are used here too.
For two minutes, requests are repeated with growing random delays after 429, 5xx, a timeout or a
broken connection. A reader sees a complete object or none.
"""

import contextlib
import functools
import http.client
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

from trainer.files.regular_file import TooLargeError

SCHEME = "gs://"
_CONNECTIONS = 64
_SECONDS = (10.0, 60.0)
"""Limits on the time to connect and between two bytes."""


def read(uri: str, limit: int) -> bytes:
    """Return the content of an object once its checksum is verified.

    Raises:
      TooLargeError: it has more than `limit` bytes; at most these are fetched.
      GoogleAPICallError: the storage answers with an error.
    """
    contents = _Limited(limit)
    _blob(uri).download_to_file(contents, retry=DEFAULT_RETRY, timeout=_SECONDS)
    return contents.getvalue()


def write(uri: str, contents: bytes, mime_type: str) -> None:
    """Write an object, over an earlier one if there is any."""
    _blob(uri).upload_from_string(
        contents, mime_type, retry=DEFAULT_RETRY, timeout=_SECONDS, checksum="crc32c"
    )


def exists(uri: str) -> bool:
    """Return whether there is an object of this name; a bucket is not an object."""
    is_bucket = "/" not in uri.removeprefix(SCHEME)
    return not is_bucket and _blob(uri).exists(retry=DEFAULT_RETRY, timeout=_SECONDS)


def names(folder: str) -> list[str]:
    """Return the names of the objects and folders directly in a folder."""
    bucket, prefix = gcsio.parse_gcs_path(f"{folder}/", object_optional=True)
    listing = client().list_blobs(
        bucket, prefix=prefix, delimiter="/", retry=DEFAULT_RETRY, timeout=_SECONDS
    )
    found = {blob.name for blob in listing} | set(listing.prefixes)
    return sorted({name[len(prefix) :].rstrip("/") for name in found} - {""})


def delete(uri: str) -> None:
    """Delete an object, and all objects below a folder of this name."""
    with ThreadPoolExecutor(_CONNECTIONS // 2) as pool:
        for _ in pool.map(_delete, _tree(uri)):
            pass


def delete_object(uri: str) -> None:
    """Delete an object, if it is there."""
    _delete(_blob(uri))


def describe_error(error: Exception) -> str | None:
    """Describe an error of the storage in a phrase without the address; None for other errors."""
    if isinstance(error, exceptions.RetryError):
        last = describe_error(error.cause) or error.cause
        return f"no success in {DEFAULT_RETRY.timeout:.0f} seconds; the last attempt: {last}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection, or a broken one"
    code = error.code if isinstance(error, exceptions.GoogleAPICallError) else None
    if isinstance(error, InvalidResponse):
        code = error.response.status_code
    if not code:
        return None
    # Proxies also answer with numbers that have no standard phrase.
    return f"the storage answers {int(code)} {http.client.responses.get(int(code), '')}".rstrip()


def is_temporary(error: Exception) -> bool:
    """Return whether the same request may succeed later: storage was busy or out of reach."""
    if isinstance(error, exceptions.RetryError):
        return True
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and error.retryable:
        return True
    # Google's library publishes no name for the errors that it retries.
    return DEFAULT_RETRY._predicate(error)


def refuses_all_writes(error: Exception) -> bool:
    """Return whether other writes would fail too: no success in two minutes, no access, no
    bucket.
    """
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
            raise TooLargeError(f"expected at most {self._limit} bytes, the object has more")
        return super().write(part)


@functools.cache
def client() -> Client:
    """Return the client of this process."""
    # Neither library gives these two a public name.
    created = gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions([]))
    session = created._http
    adapter = HTTPAdapter(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return created


def _blob(uri: str) -> Blob:
    bucket, name = gcsio.parse_gcs_path(uri)
    return client().bucket(bucket).blob(name)


def _tree(uri: str) -> Iterator[Blob]:
    bucket, name = gcsio.parse_gcs_path(uri)
    yield _blob(uri)
    yield from client().list_blobs(bucket, prefix=f"{name}/", retry=DEFAULT_RETRY, timeout=_SECONDS)


def _delete(blob: Blob) -> None:
    # It was never there, or an attempt whose answer was lost has deleted it.
    with contextlib.suppress(exceptions.NotFound):
        blob.delete(retry=DEFAULT_RETRY, timeout=_SECONDS)
