"""Write local files so that a reader sees the former content or the new one, never a part."""

import contextlib
import os
import re
import uuid

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial")


def write(path: str, contents: bytes) -> None:
    """Write a file and its folders.

    Raises:
      OSError: it could not be written; no part of it is left.
    """
    folder = os.path.dirname(path)
    partial = os.path.join(folder, f".{uuid.uuid4().hex}.partial")
    try:
        try:
            _fill(partial, contents)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            _fill(partial, contents)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def is_partial(name: str) -> bool:
    """Return whether a file of this name is unfinished; a killed writer leaves such files."""
    return _PARTIAL.fullmatch(name) is not None


def _fill(path: str, contents: bytes) -> None:
    with open(path, "wb") as file:
        file.write(contents)
