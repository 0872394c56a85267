"""Listing, reading and making room for files of local folders and object stores."""

import collections
import contextlib
import os
import pathlib
import posixpath
import socket
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from trainer.errors import DataError

# DICOM files often carry no suffix, hence the empty one.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ""}
)

OUTAGES = (tf.errors.AbortedError, tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
"""What TensorFlow raises where storage doesn't answer, the first of them once its own attempts have failed."""


PARTIAL = ".partial-"
"""Part of the name of a file that isn't finished."""


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
        logging.info(
            "%s: left out files that are no images by their suffix: %s", root, dict(others)
        )
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


def write_text(path: str, text: str) -> None:
    """Writes a small file whole or not at all, locally or in a bucket."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Writes a file whole or not at all, locally or in a bucket (where an object appears only once it is complete).

    Raises:
      OSError: it can't be written.
    """
    # With the host's name: in containers that share a volume, each calls itself process 1.
    partial = path if is_remote(path) else f"{path}{PARTIAL}{socket.gethostname()}-{os.getpid()}"
    with translate_storage_error(path):
        if folder := os.path.dirname(path):
            make_folder(folder)
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content)
        if partial != path:
            tf.io.gfile.rename(partial, path, overwrite=True)


@contextlib.contextmanager
def translate_storage_error(what: str) -> Iterator[None]:
    """TensorFlow's errors of storage, as the one sentence that the commands print."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = (
            "the disk is full"
            if "No space left" in error.message
            else error.message.splitlines()[0]
        )
        raise OSError(
            f"{what} can't be written ({reason}); mend that, and the same command goes on from the last checkpoint"
        ) from error


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
    except (
        tf.errors.NotFoundError,
        tf.errors.PermissionDeniedError,
        tf.errors.UnauthenticatedError,
    ) as error:
        raise DataError(
            f"{root} cannot be listed ({error.message.splitlines()[0]}); check the address and access"
        ) from error
    if not found:
        raise _no_folder(root)
    # A glob yields folders too: what something else lies in, or the empty objects named `folder/` that consoles leave behind.
    folders = {path.rpartition("/")[0] for path in found}
    yield from (path for path in found - folders if not path.endswith("/"))


def _no_folder(root: str) -> DataError:
    return DataError(f"{root} is no folder; name the one that holds the images")
