"""Tell URLs, such as `gs://bucket/folder`, from paths of this machine."""

import os
import re
import urllib.parse

_SEPARATOR = "://"


def is_remote(path: str) -> bool:
    """Return whether `path` is a URL rather than a path of this machine."""
    return _SEPARATOR in path


def split_url(path: str) -> tuple[str, str]:
    """Return scheme and place of a URL; of a path of this machine, an empty scheme and the path."""
    scheme, separator, place = path.partition(_SEPARATOR)
    return (scheme, place) if separator else ("", path)


def absolute(path: str) -> str:
    """Return a URL without trailing slashes, or the absolute path of a path or `file://` URL.

    `~` is the home; links are not followed.
    """
    if path.startswith("file://"):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
    elif is_remote(path):
        return path.rstrip("/")
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (takes any user)


def join_url(scheme: str, place: str) -> str:
    """Return the URL of a scheme and a place."""
    return f"{scheme}{_SEPARATOR}{place}"


def hide_credentials(text: str) -> str:
    """Return a text, such as the message of another program, without the credentials in its URLs.

    `http://user:password@host` becomes `http://***@host`.
    """
    return re.sub(r"(?<=://)[^/\s@]*@", "***@", text)
