"""Find and read the instances of a DICOM archive over DICOMweb (PS3.18), by QIDO-RS and WADO-RS.

An address is that of a service with `dicomweb+` before it, and what is wanted of it:

    dicomweb+https://archive/dicom-web/studies/1.2.3[/series/1.2.4[/instances/1.2.5]]
    dicomweb+https://archive/dicom-web/studies?PatientID=123     (or series?..., instances?...)

Requests are repeated as those of a bucket are. Files are only fetched here, never parsed.
"""

import email.message
import functools
import importlib.util
import logging as python_logging
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import requests
from absl import logging
from google.api_core import exceptions
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from batch_inference.storage import gcs
from trainer.dicom_output import identity
from trainer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient

SCHEMES = ("dicomweb+http", "dicomweb+https")
USER, PASSWORD, TOKEN = (f"HUMERUS_DICOMWEB_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
"""Environment variables of the credentials."""
_LEVELS = ("studies", "series", "instances")
_ADDRESS = re.compile(
    r"dicomweb\+(?P<service>https?://[^/?#]+(?:/[^?#]*?)??)"
    r"/(?P<path>(?:studies|series|instances)(?:/[^?#]*?)?)/?(?:\?(?P<query>[^#]*))?"
)
_UID = re.compile(r"[0-9.]{1,64}")
_PAGE = 500
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


class Address(NamedTuple):
    """What an address asks for.

    Attributes:
      service: URL of the service.
      uids: UIDs of study, series and instance by level, as far as they are named.
      level: one of `_LEVELS`: that of the last UID, or that of the query.
      query: attributes to match, by keyword or tag; of a resource, empty.
    """

    service: str
    uids: Mapping[str, str]
    level: str
    query: Mapping[str, list[str]]


class Instance(NamedTuple):
    """An instance: its address, and the UIDs of its study, of its series and of itself."""

    address: str
    study: str
    series: str
    uid: str


def is_address(uri: str) -> bool:
    """Return whether `uri` names something in a DICOM archive."""
    return uri.partition("://")[0] in SCHEMES


def parse(uri: str) -> Address:
    """Return what an address asks for.

    Raises:
      ConfigError: it is not an address, or holds a password; the message does not repeat it.
    """
    match = _ADDRESS.fullmatch(uri)
    names = match["path"].split("/") if match else []
    levels, uids = names[0::2], names[1::2]
    allowed = [list(_LEVELS[:1]), list(_LEVELS[:2]), list(_LEVELS), ["series"], ["instances"]]
    allowed.append(["studies", "instances"])
    is_query = len(uids) < len(levels)
    if (
        match is None
        or levels not in allowed
        or not all(_UID.fullmatch(uid) for uid in uids)
        or (match["query"] and not is_query)
        or (not is_query and levels != list(_LEVELS[: len(levels)]))
    ):
        raise ConfigError(
            "the address of a DICOM archive is incomplete or malformed: expected "
            "dicomweb+https://HOST/PATH/studies/UID, also with /series/UID and /instances/UID, or "
            "a query such as dicomweb+https://HOST/PATH/studies?PatientID=..."
        )
    if "@" in match["service"]:
        raise ConfigError(
            "the address of a DICOM archive holds credentials, which logs would show; give them "
            f"in the environment variables {USER} and {PASSWORD}, or {TOKEN}"
        )
    query = urllib.parse.parse_qs(match["query"] or "", keep_blank_values=True)
    if {"limit", "offset"} & query.keys():
        raise ConfigError(
            "the query of a DICOM archive names limit or offset, which this program sets itself; "
            "omit them"
        )
    return Address(match["service"], dict(zip(levels, uids, strict=False)), levels[-1], query)


def describe(uri: str, pseudonym: Callable[[str], str]) -> str:
    """Return an address without identifiers: pseudonyms for UIDs, and * for what a query matches.

    Raises:
      ConfigError: as `parse`.
    """
    address = parse(uri)
    words = [address.service]
    for level, uid in address.uids.items():
        words += [level, pseudonym(uid)]
    if address.level not in address.uids:
        words.append(address.level)
    query = "&".join(f"{name}=*" for name in address.query)
    return f"dicomweb+{'/'.join(words)}{'?' if query else ''}{query}"


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
    uids, is_query = dict(address.uids), address.level not in address.uids
    if not is_query:
        if address.level == "instances":
            yield from _list(
                address.service, uids, "instances", {"SOPInstanceUID": uids["instances"]}
            )
        else:
            yield from _descend(address.service, uids, address.level)
        return
    if address.level == "instances":
        yield from _list(address.service, uids, "instances", address.query)
        return
    for found in _search(address.service, uids, address.level, address.query):
        if address.level == "studies" or _may_hold_pictures(found):
            yield from _descend(address.service, uids | _read_uids(found), address.level)


def read(uri: str, limit: int) -> bytes:
    """Return the file of an instance.

    Raises:
      LimitError: it has more than `limit` bytes; hardly more are fetched.
      GoogleAPICallError, RequestException: the archive refuses, or does not answer.
      ConfigError: as `parse`.
    """
    address = parse(uri)
    url = uri.removeprefix("dicomweb+")
    return DEFAULT_RETRY(functools.partial(_fetch, address.service, url, limit))()


def _descend(service: str, uids: Mapping[str, str], level: str) -> Iterator[Instance]:
    """Yield the instances of a study or a series."""
    if level == "series":
        yield from _list(service, uids, "instances", {})
        return
    study = {"studies": uids["studies"]}
    for found in _search(service, study, "series", {}):
        if _may_hold_pictures(found):
            yield from _list(service, study | _read_uids(found), "instances", {})


def _list(
    service: str, uids: Mapping[str, str], level: str, query: Mapping[str, Any]
) -> Iterator[Instance]:
    within = {name: uid for name, uid in uids.items() if name != "instances"}
    for found in _search(service, within, level, query):
        study, series, uid = (({**uids} | _read_uids(found)).get(name, "") for name in _LEVELS)
        if all(map(_UID.fullmatch, (study, series, uid))):
            path = f"studies/{study}/series/{series}/instances/{uid}"
            yield Instance(f"dicomweb+{service}/{path}", study, series, uid)


def _search(
    service: str, uids: Mapping[str, str], level: str, query: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the results of a query, page by page, in DICOM's JSON.

    Raises:
      DataError: the archive gives the same full page at any offset, so that results are missing.
    """
    client = _client(service)
    search: Callable[..., list[dict]] = getattr(client, f"search_for_{level}")
    within = {
        f"{name}_instance_uid": uids[key]
        for name, key in (("study", "studies"), ("series", "series"))
        if key in uids and level != "studies"
    }
    offset = 0
    earlier: set[tuple[str, ...]] = set()
    while True:
        params = {**query, "limit": _PAGE, "offset": offset}
        page = _listing(functools.partial(search, **within, additional_params=params))
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
    if results == _PAGE:
        raise DataError(
            f"the DICOM archive {service} gives the same {results} results at any offset, so that "
            "further ones cannot be listed; ask for fewer at once: one study, or a query that "
            "matches less"
        )
    if results < _PAGE:
        _warn_of_ignored_offset(service)


@functools.cache
def _warn_of_ignored_offset(service: str) -> None:
    logging.warning(
        "The DICOM archive %s ignores the offset of a query: if it limits the number of results "
        "itself, images beyond that are not found.",
        service,
    )


def _listing(search: Callable[[], _T]) -> _T:
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
    session = _session(service)
    with session.get(url, headers={"Accept": accept}, stream=True, timeout=_SECONDS) as answer:
        if answer.status_code >= 400:
            raise exceptions.from_http_status(answer.status_code, "")
        for part in answer.iter_content(1 << 18):
            contents += part
            if len(contents) > limit + _ENVELOPE:
                raise gcs.LimitError(f"expected at most {limit} bytes, the instance has more")
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
        raise requests.exceptions.ChunkedEncodingError("the answer of the archive is cut")
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


@functools.cache
def _session(service: str) -> requests.Session:
    """Return the connections of this process to a service."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=64)
    session.mount(service, adapter)
    if os.environ.get(TOKEN):
        session.auth = _Bearer(os.environ[TOKEN])
    elif os.environ.get(USER):
        session.auth = (os.environ[USER], os.environ.get(PASSWORD, ""))
    return session


class _Bearer(requests.auth.AuthBase):
    """Adds a token; unlike a header of the session, no entry of ~/.netrc replaces it."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@functools.cache
def _client(service: str) -> "DICOMwebClient":
    if importlib.util.find_spec("dicomweb_client") is None:
        raise ConfigError(
            "a DICOM archive as input needs the package dicomweb-client; install humerus with the "
            "extra [dicom]"
        )
    from dicomweb_client import DICOMwebClient

    # It logs the UIDs that it asks for.
    python_logging.getLogger("dicomweb_client").setLevel(python_logging.CRITICAL)
    client = DICOMwebClient(
        service, session=_session(service), timeout=_SECONDS, permissive_uid=True
    )
    client.set_http_retry_params(retry=False)
    return client
