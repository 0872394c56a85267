"""Read the text of a manifest and resolve the paths in it: one rule for preparation and scoring."""

import codecs
import csv
import io
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, TextIO

from trainer.errors import DataError
from trainer.files import manifest_columns, urls

_SEPARATORS = ",;\t"
_NAMED_SEPARATOR = re.compile('"?sep=([,;\t])"?')
_BLANK = f'{_SEPARATORS} "\r\n'
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def detect_encoding(start: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 with a byte order mark, or UTF-8."""
    is_utf_16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf_16 else "utf-8-sig"


def open_text(file: BinaryIO) -> TextIO:
    """Return an open binary file as text to iterate over by lines, with line ends as they are.

    Bytes that are not UTF-8 become the surrogates that Python uses for such bytes of file names.
    """
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
    encoding = detect_encoding(buffered.peek(2))
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    return io.TextIOWrapper(buffered, encoding, errors, newline="")


def read_csv(lines: Iterable[str]) -> Any:
    """Return a strict `csv.reader` of a table whose header may be preceded by blank lines.

    What separates the cells is told by the header, see `detect_separator`, or by the line `sep=;`
    that Excel understands. The lines before the header are read as blank rows, so that the
    reader's line numbers are those of the file.
    """
    lines, skipped, separator, header = iter(lines), 0, "", ""
    for line in lines:
        if named := _NAMED_SEPARATOR.fullmatch(line.strip()):
            separator = named[1]
        elif line.strip(_BLANK):
            header = line
            break
        skipped += 1
    rows = itertools.chain(itertools.repeat("\n", skipped), [header], lines)
    return csv.reader(rows, delimiter=separator or detect_separator(header), strict=True)


def detect_separator(header: str) -> str:
    """Return what separates the cells of a CSV file: comma, semicolon or tab.

    It is the one that makes a column of paths, else the most frequent one. Spreadsheet programs of
    many countries write semicolons.
    """
    for separator in _SEPARATORS:
        try:
            names = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:  # a cell beyond any length; who reads the rows says so
            continue
        if "path" in manifest_columns.find_roles(set(map(manifest_columns.normalise_name, names))):
            return separator
    return max(_SEPARATORS, key=header.count)


def is_blank(cells: Sequence[str]) -> bool:
    """Return whether all cells of a row are blank."""
    return not any(cell.strip() for cell in cells)


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
