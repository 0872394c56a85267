"""Parse the address of what is wanted of a DICOM archive.

It is that of a DICOMweb service with `dicomweb+` before it, and a resource or a query:

    dicomweb+https://archive/dicom-web/studies/1.2.3[/series/1.2.4[/instances/1.2.5]]
    dicomweb+https://archive/dicom-web/studies?PatientID=123     (or series?..., instances?...)
"""

import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import NamedTuple

from trainer.errors import ConfigError

SCHEMES = ("dicomweb+http", "dicomweb+https")
USER, PASSWORD, TOKEN = (f"HUMERUS_DICOMWEB_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
"""Environment variables of the credentials."""
LEVELS = ("studies", "series", "instances")
_ADDRESS = re.compile(
    r"dicomweb\+(?P<service>https?://[^/?#]+(?:/[^?#]*?)??)"
    r"/(?P<path>(?:studies|series|instances)(?:/[^?#]*?)?)/?(?:\?(?P<query>[^#]*))?"
)
UID = re.compile(r"[0-9.]{1,64}")


class Address(NamedTuple):
    """Describes what an address asks for.

    Attributes:
      service: URL of the service.
      uids: UIDs of study, series and instance by level, as far as they are named.
      level: one of `LEVELS`: that of the last UID, or that of the query.
      query: attributes to match, by keyword or tag; of a resource, empty.
    """

    service: str
    uids: Mapping[str, str]
    level: str
    query: Mapping[str, list[str]]


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
    allowed = [list(LEVELS[:1]), list(LEVELS[:2]), list(LEVELS), ["series"], ["instances"]]
    allowed.append(["studies", "instances"])
    is_query = len(uids) < len(levels)
    if (
        match is None
        or levels not in allowed
        or not all(UID.fullmatch(uid) for uid in uids)
        or (match["query"] and not is_query)
        or (not is_query and levels != list(LEVELS[: len(levels)]))
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


def describe(uri: str, pseudonym: Callable[[str], str], is_secret: bool = False) -> str:
    """Return an address without identifiers: pseudonyms for UIDs, and * for what a query matches.

    Args:
      uri: the address.
      pseudonym: makes pseudonyms.
      is_secret: whether the pseudonyms are made with a secret. If so, query values become
        pseudonyms too; without a secret they could be guessed, as there are few patient numbers.

    Raises:
      ConfigError: as `parse`.
    """
    address = parse(uri)
    words = [address.service]
    for level, uid in address.uids.items():
        words += [level, pseudonym(uid)]
    if address.level not in address.uids:
        words.append(address.level)
    query = "&".join(
        f"{name}={pseudonym(value) if is_secret else '*'}"
        for name, values in address.query.items()
        for value in values
    )
    return f"dicomweb+{'/'.join(words)}{'?' if query else ''}{query}"
