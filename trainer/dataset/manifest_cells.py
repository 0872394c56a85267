"""Read single cells of a manifest: words such as labels, and paths."""

from collections.abc import Mapping
from typing import TypeVar

from trainer.errors import DataError
from trainer.files import manifest_text, study_folders

# Spreadsheet programs write numbers and truth values in ways of their own.
LABEL_WORDS = study_folders.LABEL_WORDS | {
    "0.0": 0,
    "false": 0,
    "no": 0,
    "1.0": 1,
    "true": 1,
    "yes": 1,
}

_T = TypeVar("_T")


def read_word(words: Mapping[str, _T], value: str, column: str, where: str) -> _T:
    """Return what a word stands for; raise `DataError`, which names the cell, for other words."""
    if value.lower() not in words:
        raise DataError(f"{where}: {column} {value!r} is none of {', '.join(words)}")
    return words[value.lower()]


def resolve(root: str, cell: str, where: str) -> tuple[str, str]:
    """Return the name in the data set and the URI of a file that is listed as `cell`.

    Raises:
      DataError: as `manifest_text.resolve_path`.
    """
    uri = manifest_text.resolve_path(cell, root, where)
    return (uri.removeprefix(root.rstrip("/") + "/") if root else uri), uri
