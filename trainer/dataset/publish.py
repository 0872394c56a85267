"""Put a finished data set in its place, completely or not at all."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from absl import logging

from trainer import storage
from trainer.dataset.locate import INFO_FILE
from trainer.errors import ConfigError

_PREFIX = ".incomplete-"


@contextlib.contextmanager
def workspace(data_dir: str) -> Iterator[str]:
    """Yield a local folder to build in, which is removed afterwards, with those of killed runs.

    For a local `data_dir` it lies inside, on the same file system. Other runs wait for it.
    """
    if storage.is_remote(data_dir):
        with tempfile.TemporaryDirectory(prefix="humerus-prepare-") as folder:
            yield folder
        return
    root = pathlib.Path(data_dir)
    root.mkdir(parents=True, exist_ok=True)
    with _lock_folder(root) as locked:
        if locked:
            for leftover in root.glob(_PREFIX + "*"):
                logging.info("removing the folder of an interrupted run: %s", leftover)
                shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as folder:
            yield folder


def check_replaceable(target: str) -> None:
    """Check that replacing a folder deletes no other files: it must be empty, or hold a data set.

    One in a bucket is not checked: it is replaced file by file, so that a stop may leave any part.

    Raises:
      ConfigError: it holds other files.
    """
    names = [] if storage.is_remote(target) else storage.list_folder(target)
    if names and INFO_FILE not in names:
        raise ConfigError(
            f"{target} holds {names[0]}, but no {INFO_FILE}; all that is in it would be deleted:"
            " move it away, or name another --data_dir"
        )


def publish(built: str, target: str, workspace_folder: str) -> None:
    """Put a finished directory in place of whatever is at `target`.

    Args:
      built: the finished directory.
      target: its place, local or in a bucket.
      workspace_folder: folder of `workspace`, into which a replaced data set is moved.
    """
    if storage.is_remote(target):
        storage.replace_folder(pathlib.Path(built), target, mark=INFO_FILE)
        return
    place = pathlib.Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(pathlib.Path(workspace_folder) / "replaced")
    pathlib.Path(built).rename(place)


@contextlib.contextmanager
def _lock_folder(folder: pathlib.Path) -> Iterator[bool]:
    """Lock a folder, after other runs in it have ended; the kernel unlocks it with the process.

    Yields:
      False if the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning(
                "another humerus-prepare is running in %s; waiting for it to end", folder
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning(
                "%s cannot be locked (%s); run only one humerus-prepare there at a time",
                folder,
                error.strerror,
            )
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
