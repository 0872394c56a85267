"""Listing, reading and making room for files of local folders and object stores."""

import collections
import os
import pathlib
import posixpath
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from trainer.errors import DataError

# DICOM files often carry no suffix, hence the empty one.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ""})

OUTAGES = (tf.errors.AbortedError, tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
"""What TensorFlow raises where storage doesn't answer, the first of them once its own attempts have failed."""


def is_remote(path: str) -> bool:
    """Whether `path` is a URL such as `gs://bucket/folder` rather than a path of this machine."""
    return "://" in path


def list_images(root: str) -> list[str]:
    """Paths relative to `root`, with `/`, of the files below it that may be images, sorted.

    Hidden files and those of macOS archives (`._*`, `__MACOSX`) are left out.

    Raises:
      DataError: there is no such folder, or no right to list it.
      OpError: the storage doesn't answer.
    """
    paths: list[str] = []
    others: collections.Counter[str] = collections.Counter()
    for path in _list_remote(root) if is_remote(root) else _list_local(root):
        if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
            continue
        suffix = posixpath.splitext(path)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            paths.append(path)
        else:
            others[suffix] += 1
    if others:
        logging.info("%s: left out files that are no images by their suffix: %s", root, dict(others))
    return sorted(paths)


def read_bytes(uri: str) -> bytes | None:
    """The file's content; None where there is no such file."""
    try:
        with tf.io.gfile.GFile(uri, "rb") as file:
            return file.read()
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):  # the latter for a folder
        return None


def make_folder(path: str) -> None:
    """Makes the folder where the storage has such.

    In `gs://` there are none, and asking for one takes requests, and rights that a writer may lack.
    """
    if not path.startswith("gs://"):
        tf.io.gfile.makedirs(path)


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
    # gfile.walk asks an object store about every single object; a glob of fixed depth is one listing, a thousand objects a page.
    found: set[str] = set()
    level = root
    try:
        while uris := tf.io.gfile.glob(level := level + "/*"):
            found.update(uri.removeprefix(root + "/") for uri in uris)
    except (tf.errors.NotFoundError, tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        raise DataError(f"{root} cannot be listed ({error.message.splitlines()[0]}); check the address and access") from error
    if not found:
        raise _no_folder(root)
    # A glob yields folders too: what something else lies in, or the empty objects named `folder/` that consoles leave behind.
    folders = {path.rpartition("/")[0] for path in found}
    yield from (path for path in found - folders if not path.endswith("/"))


def _no_folder(root: str) -> DataError:
    return DataError(f"{root} is no folder; name the one that holds the images")
