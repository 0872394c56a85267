"""Find and read the instances of a DICOM archive over DICOMweb (PS3.18), by QIDO-RS and WADO-RS.

`dicomweb_address` parses what is asked for. Requests are repeated as those of a bucket are. Files
are only fetched here, never parsed.
"""

import email.message
import functools
import logging as python_logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import requests
from absl import logging
from google.api_core import exceptions
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from batch_inference.storage.dicomweb_address import LEVELS, PASSWORD, TOKEN, UID, USER, parse
from trainer import machine
from trainer.dicom_output import identity
from trainer.errors import ConfigError, DataError
from trainer.files.regular_file import TooLargeError

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient

PAGE_SIZE = 500
"""Results that are asked for at once."""
_SECONDS = (10.0, 60.0)
"""Limits on the time to connect and between two bytes."""
_ENVELOPE = 1 << 16
"""Bytes that an answer may have beside the file."""
_WITHOUT_PICTURES = frozenset({"AU", "DOC", "KO", "PR", "REG", "SR"})
"""Modalities of series that hold no picture."""
_TAGS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
_MODALITY, _DESCRIPTION = "00080060", "0008103E"

_T = TypeVar("_T")


class Instance(NamedTuple):
    """Names an instance: its address, and the UIDs of its study, of its series and of itself."""

    address: str
    study: str
    series: str
    uid: str


def find(uri: str) -> Iterator[Instance]:
    """Yield the instances that an address asks for, as they are listed.

    Series that hold no pictures, and those of our own results, are omitted unless the address names
    them or asks for instances.

    Raises:
      ConfigError: as `parse`, or the package of the client is missing.
      DataError: the archive refuses the credentials, or can't list more than a page.
      GoogleAPICallError, RequestException: the archive refuses, or does not answer.
    """
    address = parse(uri)
    service, uids, level = address.service, dict(address.uids), address.level
    if level == "instances":
        named = {"SOPInstanceUID": uids[level]} if level in uids else address.query
        yield from _list(service, uids, named)
    elif level in uids:
        yield from _descend(service, uids, level)
    else:
        for found in _search(service, uids, level, address.query):
            if level == "studies" or _may_hold_pictures(found):
                yield from _descend(service, uids | _read_uids(found), level)


def read(uri: str, limit: int) -> bytes:
    """Return the file of an instance.

    Raises:
      TooLargeError: it has more than `limit` bytes; hardly more are fetched.
      GoogleAPICallError, RequestException: the archive refuses, or does not answer.
      ConfigError: as `parse`.
    """
    address = parse(uri)
    url = uri.removeprefix("dicomweb+")
    return DEFAULT_RETRY(functools.partial(_fetch, address.service, url, limit))()


def _descend(service: str, uids: Mapping[str, str], level: str) -> Iterator[Instance]:
    """Yield the instances of a study or a series."""
    if level == "series":
        yield from _list(service, uids, {})
        return
    study = {"studies": uids["studies"]}
    for found in _search(service, study, "series", {}):
        if _may_hold_pictures(found):
            yield from _list(service, study | _read_uids(found), {})


def _list(service: str, uids: Mapping[str, str], query: Mapping[str, Any]) -> Iterator[Instance]:
    """Yield the instances of a study, a series or a whole archive that match a query."""
    within = {name: uid for name, uid in uids.items() if name != "instances"}
    for found in _search(service, within, "instances", query):
        study, series, uid = (({**uids} | _read_uids(found)).get(name, "") for name in LEVELS)
        if all(map(UID.fullmatch, (study, series, uid))):
            path = f"studies/{study}/series/{series}/instances/{uid}"
            yield Instance(f"dicomweb+{service}/{path}", study, series, uid)


def _search(
    service: str, uids: Mapping[str, str], level: str, query: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the results of a query, page by page, in DICOM's JSON.

    Raises:
      DataError: the archive gives the same full page at any offset, so that results are missing.
    """
    client = _client(service, _read_credentials())
    search: Callable[..., list[dict]] = getattr(client, f"search_for_{level}")
    within = {
        f"{name}_instance_uid": uids[key]
        for name, key in (("study", "studies"), ("series", "series"))
        if key in uids and level != "studies"
    }
    offset = 0
    earlier: set[tuple[str, ...]] = set()
    while True:
        params = {**query, "limit": PAGE_SIZE, "offset": offset}
        page = _retry_search(functools.partial(search, **within, additional_params=params))
        if not page:
            return
        named = {tuple(_read_uids(found).values()) for found in page}
        if named <= earlier:
            _check_complete(service, len(page))
            return
        yield from page
        offset += len(page)
        earlier = named


def _check_complete(service: str, results: int) -> None:
    """Check that an archive that ignores the offset gave everything at once, as far as one can see.

    Args:
      service: URL of the service.
      results: number of results in the page that it repeats.

    Raises:
      DataError: it kept to the limit, so that there may be more.
    """
    if results == PAGE_SIZE:
        raise DataError(
            f"the DICOM archive {service} gives the same {results} results at any offset, so that "
            "further ones cannot be listed; ask for fewer at once: one study, or a query that "
            "matches less"
        )
    if results < PAGE_SIZE:
        _warn_of_ignored_offset(service)


@functools.cache
def _warn_of_ignored_offset(service: str) -> None:
    logging.warning(
        "The DICOM archive %s ignores the offset of a query: if it limits the number of results "
        "itself, images beyond that are not found.",
        service,
    )


def _retry_search(search: Callable[[], _T]) -> _T:
    def attempt() -> _T:
        try:
            return search()
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else 500
            raise exceptions.from_http_status(code, "") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            # Their messages quote the address.
            raise ConfigError("the address of the DICOM archive names no valid host") from None

    try:
        return DEFAULT_RETRY(attempt)()
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise DataError(
            f"the DICOM archive refuses the credentials ({int(error.code)}); set {USER} and "
            f"{PASSWORD}, or {TOKEN}, in the environment"
        ) from None


def _fetch(service: str, url: str, limit: int) -> bytes:
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    contents = bytearray()
    session = _session(service, _read_credentials())
    with session.get(url, headers={"Accept": accept}, stream=True, timeout=_SECONDS) as answer:
        if answer.status_code >= 400:
            raise exceptions.from_http_status(answer.status_code, "")
        for part in answer.iter_content(1 << 18):
            contents += part
            if len(contents) > limit + _ENVELOPE:
                raise TooLargeError(f"expected at most {limit} bytes, the instance has more")
        return _unwrap(answer.headers.get("Content-Type", ""), bytes(contents))


def _unwrap(content_type: str, body: bytes) -> bytes:
    """Return the only part of a multipart body, or a body that is not multipart (PS3.18 8.7.1)."""
    header = email.message.Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        return body
    delimiter = b"--" + boundary.encode("ascii", "replace")
    _, _, part = body.partition(delimiter)
    _, _, contents = part.partition(b"\r\n\r\n")
    end = contents.rfind(b"\r\n" + delimiter)
    if end < 0:
        raise requests.exceptions.ChunkedEncodingError("the answer of the archive is incomplete")
    return contents[:end]


def _read_uids(found: Mapping[str, Any]) -> dict[str, str]:
    read = {level: _read_value(found, tag) for level, tag in _TAGS.items()}
    return {level: uid for level, uid in read.items() if uid}


def _read_value(found: Mapping[str, Any], tag: str) -> str:
    values = found.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _may_hold_pictures(series: Mapping[str, Any]) -> bool:
    is_ours = _read_value(series, _DESCRIPTION) in identity.DESCRIPTIONS.values()
    return not is_ours and _read_value(series, _MODALITY) not in _WITHOUT_PICTURES


def _read_credentials() -> tuple[str, str, str]:
    """Return user, password and token of the environment; an empty string for what is not set."""
    return os.environ.get(USER, ""), os.environ.get(PASSWORD, ""), os.environ.get(TOKEN, "")


@functools.cache
def _session(service: str, credentials: tuple[str, str, str]) -> requests.Session:
    """Return the connections of this process to a service."""
    user, password, token = credentials
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=64)
    session.mount(service, adapter)
    if token:
        session.auth = _Bearer(token)
    elif user:
        session.auth = (user, password)
    return session


class _Bearer(requests.auth.AuthBase):
    """Adds a token; unlike a header of the session, no entry of ~/.netrc replaces it."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@functools.cache
def _client(service: str, credentials: tuple[str, str, str]) -> "DICOMwebClient":
    if not machine.has_packages("dicomweb_client"):
        raise ConfigError(
            "a DICOM archive as input needs the package dicomweb-client; "
            + machine.advise_extra("dicom")
        )
    from dicomweb_client import DICOMwebClient

    # It logs the UIDs that it asks for.
    python_logging.getLogger("dicomweb_client").setLevel(python_logging.CRITICAL)
    client = DICOMwebClient(
        service, session=_session(service, credentials), timeout=_SECONDS, permissive_uid=True
    )
    client.set_http_retry_params(retry=False)
    return client
