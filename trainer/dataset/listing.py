"""List the files of a source folder, and tell which of them are taken and which are omitted."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from trainer import storage
from trainer.dataset.example import Example
from trainer.errors import DataError
from trainer.files import folder_walk

OUTSIDE_LAYOUT = "outside_layout"
OTHER_BODY_PART = "other_body_part"
NAME_NOT_UTF8 = "name_not_utf8"


@dataclasses.dataclass(frozen=True)
class Omission:
    """Describes a file of the source folder that is not opened.

    Attributes:
      path: relative to the source, with `/`.
      reason: `outside_layout`, `other_body_part` or `name_not_utf8`.
      detail: the reason in words.
    """

    path: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """Holds the files of a source.

    Attributes:
      examples: the files to open, sorted by path. Only their content tells whether they are images.
      omissions: all other files that are not hidden.
      body_parts: those that were taken from MURA; empty where the source is not MURA.
      warnings: sentences on what may be wrong.
    """

    examples: Sequence[Example]
    omissions: Sequence[Omission] = ()
    body_parts: Sequence[str] = ()
    warnings: Sequence[str] = ()


def list_files(root: str) -> list[str]:
    """Return the paths of all files below a folder, relative to it, sorted; see `folder_walk`.

    Raises:
      DataError: there is no such folder, or it must not be listed.
      StorageOutageError: the storage does not answer.
    """
    paths = _list_remote(root) if storage.is_remote(root) else _list_local(root)
    return sorted(path for path in paths if not folder_walk.is_hidden(path))


def split_off_unencodable(paths: Sequence[str]) -> tuple[list[str], list[Omission]]:
    """Separate the paths that a data set can hold from those whose bytes are not UTF-8."""
    usable, omissions = [], []
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            detail = "the name of the file is not UTF-8; rename it"
            omissions.append(Omission(printable, NAME_NOT_UTF8, detail))
        else:
            usable.append(path)
    return usable, omissions


def _list_local(root: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    if not pathlib.Path(root).is_dir():
        raise _describe_missing_folder(root)
    start = len(root.rstrip("/")) + 1
    return (path[start:] for path in folder_walk.walk_files(root, on_error=fail))


def _list_remote(root: str) -> Iterator[str]:
    # gfile.walk asks an object store about every object. A glob of fixed depth is one listing of
    # a thousand objects a page.
    found: set[str] = set()
    level = root
    try:
        while uris := storage.glob(level := level + "/*"):
            found.update(uri.removeprefix(root + "/") for uri in uris)
    except (FileNotFoundError, PermissionError) as error:
        raise DataError(
            f"{root} cannot be listed ({error}); check the address and access"
        ) from error
    if not found:
        raise _describe_missing_folder(root)
    # A glob also yields folders: those of other files, and the empty objects named `folder/` that
    # consoles leave behind.
    folders = {path.rpartition("/")[0] for path in found}
    return (path for path in found - folders if not path.endswith("/"))


def _describe_missing_folder(root: str) -> DataError:
    return DataError(f"{root} is not a folder; name the one that holds the images")
