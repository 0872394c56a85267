"""List the files of a folder that may be images."""

import collections
import os
import pathlib
import posixpath
from collections.abc import Iterator

from absl import logging

from trainer import storage
from trainer.errors import DataError

# DICOM files often carry no suffix, hence the empty one.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ""}
)


def list_images(root: str) -> list[str]:
    """Return the paths of all files below `root` that may be images, relative to it, sorted.

    Hidden files and those of macOS archives (`._*`, `__MACOSX`) are omitted.

    Raises:
      DataError: there is no such folder, or no right to list it.
      StorageOutageError: the storage does not answer.
    """
    paths: list[str] = []
    others: collections.Counter[str] = collections.Counter()
    for path in _list_remote(root) if storage.is_remote(root) else _list_local(root):
        if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
            continue
        suffix = posixpath.splitext(path)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            paths.append(path)
        else:
            others[suffix] += 1
    if others:
        logging.info("%s: omitted files whose suffix is not an image's: %s", root, dict(others))
    return sorted(paths)


def _list_local(root: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    if not pathlib.Path(root).is_dir():
        raise _no_folder(root)
    for folder, _, names in os.walk(root, onerror=fail, followlinks=True):
        relative = os.path.relpath(folder, root)
        for name in names:
            yield name if relative == "." else f"{relative}/{name}"


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
        raise _no_folder(root)
    # A glob also yields folders: those of other files, and the empty objects named `folder/` that
    # consoles leave behind.
    folders = {path.rpartition("/")[0] for path in found}
    yield from (path for path in found - folders if not path.endswith("/"))


def _no_folder(root: str) -> DataError:
    return DataError(f"{root} is no folder; name the one that holds the images")
