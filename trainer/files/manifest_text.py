"""Open the text of a manifest and resolve the paths in it: one rule for preparation and scoring."""

import codecs
import io
import os
import posixpath
import re
from typing import BinaryIO, TextIO

from trainer.errors import DataError
from trainer.files import urls

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def detect_encoding(start: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 with a byte order mark, or UTF-8."""
    is_utf_16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf_16 else "utf-8-sig"


def open_text(file: BinaryIO, errors: str = "surrogateescape") -> TextIO:
    """Return an open binary file as text to iterate over by lines, with line ends as they are.

    Args:
      file: UTF-8 or UTF-16.
      errors: what becomes of bytes that are not UTF-8: by default the surrogates that Python uses
        for such bytes of file names; "strict" raises `UnicodeDecodeError`.
    """
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
    encoding = detect_encoding(buffered.peek(2))
    if encoding == "utf-16":
        errors = "strict"
    return io.TextIOWrapper(buffered, encoding, errors, newline="")


def resolve_path(cell: str, folder: str, where: str) -> str:
    """Return the local path or URI that a manifest names.

    Space around it and a slash at its end are ignored, `~` is the home, and `./` and `a/../` are
    removed. A relative path starts at the folder of the manifest. A backslash is a separator,
    unless a local file has that very name.

    Args:
      cell: the path as it is written.
      folder: folder of the manifest, local or remote; "" for the working directory.
      where: manifest and line, for messages.

    Raises:
      DataError: the path contains a NUL byte, or a drive or server of Windows.
    """
    path = cell.strip()
    if "\0" in path:
        raise DataError(f"{where}: the path {path!r} contains a NUL byte; correct the manifest")
    if urls.is_remote(path):
        return path.rstrip("/")
    if "\\" in path or _DRIVE.match(path):
        path = _replace_backslashes(path, folder, where)
    path = posixpath.normpath(os.path.expanduser(path))  # noqa: PTH111 (takes any user)
    if path.startswith("../") and urls.is_remote(folder):
        scheme, place = urls.split_url(folder)
        return urls.join_url(scheme, posixpath.normpath(f"{place}/{path}"))
    return posixpath.join(folder, path)


def _replace_backslashes(path: str, folder: str, where: str) -> str:
    if not urls.is_remote(folder) and os.path.lexists(os.path.join(folder, path)):
        return path
    if _DRIVE.match(path):
        raise DataError(
            f"{where}: {path!r} is a path of Windows, which this machine does not have; write "
            "paths relative to the manifest's folder, with / between the names"
        )
    return path.replace("\\", "/")
