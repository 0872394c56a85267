"""Read, write, list and copy files, local or in a bucket.

No other module of `trainer` calls TensorFlow's file functions.
Commands check their flags before TensorFlow is loaded: it is imported when a file is touched.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from glob import glob as _glob
from typing import Any

from trainer.errors import DataError, StorageOutageError
from trainer.files import atomic_file, regular_file
from trainer.files.urls import is_remote

_DISK_FULL = "the disk is full"
_KINDS = {
    "NotFoundError": FileNotFoundError,
    "FailedPreconditionError": IsADirectoryError,
    "PermissionDeniedError": PermissionError,
    "UnauthenticatedError": PermissionError,
}
_OUTAGES = {"AbortedError", "UnavailableError", "DeadlineExceededError"}
"""TensorFlow's errors for a storage that does not answer. `AbortedError`: its retries failed."""


def translate_error(error: BaseException) -> BaseException:
    """Return the `OSError` that a storage error of TensorFlow stands for, else the error itself.

    TensorFlow raises errors of its own also where it reads data sets and checkpoints by itself.
    """
    tensorflow = sys.modules.get("tensorflow")
    if not tensorflow or not isinstance(error, tensorflow.errors.OpError):
        return error
    kind, reason = type(error).__name__, _first_line(error)
    if kind in _OUTAGES:
        return StorageOutageError(
            f"the storage does not answer ({reason}); start the same command again"
        )
    return _KINDS[kind](reason) if kind in _KINDS else error


def _first_line(error: Any) -> str:
    if "No space left" in error.message:
        return _DISK_FULL
    return (error.message.splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _gfile() -> Iterator[Any]:
    """Yield TensorFlow's module of file functions, and raise its errors as `OSError`s."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        translated = translate_error(error)
        raise OSError(_first_line(error)) if translated is error else translated from error


@contextlib.contextmanager
def explain_write_error(what: str) -> Iterator[None]:
    """Raise a failure to write `what` as an `OSError` that says what to do about it."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        if isinstance(error, tf.errors.OpError):
            reason = _first_line(error)
        else:  # The error names a temporary file, or many files.
            is_full = error.errno == errno.ENOSPC or f"[Errno {errno.ENOSPC}]" in str(error)
            reason = _DISK_FULL if is_full else error.strerror or str(error)
        raise OSError(
            f"{what} can't be written ({reason}); remove the cause and start the same command again"
        ) from error


def exists(path: str) -> bool:
    """Return whether there is a file or folder of this name.

    It is False for a name that is too long, and for one in a folder that may not be read.
    """
    if not is_remote(path):
        return os.path.exists(path)  # noqa: PTH110, pathlib's raises then
    with _gfile() as gfile:
        return gfile.exists(path)


def glob(*patterns: str) -> list[str]:
    """Return the paths that match any of the patterns; `*` does not match `/`."""
    local = [pattern for pattern in patterns if not is_remote(pattern)]
    found = [
        path
        for pattern in local
        for path in sorted(_glob(pattern, include_hidden=True))  # noqa: PTH207, it may be absolute
    ]
    if remote := [pattern for pattern in patterns if is_remote(pattern)]:
        with _gfile() as gfile:
            found += gfile.glob(remote)
    return found


def list_folder(folder: str) -> list[str]:
    """Return the names in a folder; nothing where there is no such folder."""
    if is_remote(folder):
        folder = folder.rstrip("/")
        # Where the storage does not answer, `listdir` finds nothing instead of raising.
        return [path.removeprefix(f"{folder}/").rstrip("/") for path in glob(f"{folder}/*")]
    try:
        with _gfile() as gfile:
            return gfile.listdir(folder)
    except FileNotFoundError:
        return []


def read_time_modified(path: str) -> float:
    """Return when a file was last written, in seconds since 1970."""
    with _gfile() as gfile:
        return gfile.stat(path).mtime_nsec / 1e9


def read_bytes(path: str) -> bytes | None:
    """Return a file's content; None where there is no such file, or a folder, pipe or device.

    Raises:
      OSError: it cannot be read.
    """
    try:
        if not is_remote(path):
            # TensorFlow takes no file name that is not UTF-8.
            return regular_file.read(path, sys.maxsize)
        with _gfile() as gfile, gfile.GFile(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, regular_file.NotRegularError):
        return None


def read_json(path: str, remedy: str) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is no such file.

    Args:
      remedy: what a user may do about a damaged file.

    Raises:
      DataError: the file holds no JSON object, or an empty one.
      OSError: it cannot be read.
    """
    if (content := read_bytes(path)) is None:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(content)
        if document and isinstance(document, dict):
            return document
    raise DataError(f"{path} is damaged (expected a JSON object); {remedy}")


def write_text(path: str, text: str) -> None:
    """Write a text file as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file and its folders; a reader sees the former content or the new one, never a part.

    Raises:
      OSError: it cannot be written.
    """
    with explain_write_error(path):
        if not is_remote(path):
            atomic_file.write(path, content)
            return
        # An object in a bucket appears once it is complete.
        with _gfile() as gfile:
            make_folder(os.path.dirname(path))
            with gfile.GFile(path, "wb") as file:
                file.write(content)


def make_folder(path: str) -> None:
    """Make a folder, where the storage has folders.

    `gs://` has none, and asking for one takes requests, and rights that a writer may lack.
    """
    if path and not path.startswith("gs://"):
        with _gfile() as gfile:
            gfile.makedirs(path)


def remove_file(path: str) -> None:
    """Remove a file if there is one."""
    with contextlib.suppress(FileNotFoundError), _gfile() as gfile:
        gfile.remove(path)


def remove(path: str) -> None:
    """Remove a file, or a folder with all that it holds, if there is one."""
    with _gfile() as gfile:
        if not gfile.isdir(path):
            remove_file(path)
        else:
            gfile.rmtree(path)


def copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy a file over whatever `target` holds, and make the folder of `target`."""
    make_folder(os.path.dirname(os.fspath(target)))
    with _gfile() as gfile:
        gfile.copy(os.fspath(source), os.fspath(target), overwrite=True)


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str]:
    """Yield the path of a local file with this content: of the file itself, or of a temporary copy.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copied = f"{folder}/{path.rpartition('/')[2]}"
        copy(path, copied)
        yield copied


def download(source: str, names: Sequence[str], folder: pathlib.Path) -> None:
    """Copy files, named by their paths below `source`, to the same paths below a local folder."""
    for name in names:
        copy(f"{source}/{name}", folder / name)


def upload(folder: pathlib.Path, names: Sequence[str], target: str) -> None:
    """Copy files, named by their paths below a local folder, in their order to a folder."""
    for name in names:
        copy(folder / name, f"{target}/{name}")


def replace_folder(folder: pathlib.Path, target: str, mark: str) -> None:
    """Copy a local folder in place of a folder, local or in a bucket.

    A local one appears at once. In a bucket no folder can be renamed at once: readers go by the
    file `mark`, which therefore is removed first and copied last.

    Raises:
      OSError: it can't be written; the former folder, if it is local, is unchanged.
    """
    if is_remote(target):
        target = target.rstrip("/")
        remove_file(f"{target}/{mark}")
        remove(target)
        names = [
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        ]
        upload(folder, sorted(names, key=lambda name: (name == mark, name)), target)
        return
    place = pathlib.Path(target).resolve()
    staged, former = (place.with_name(f".{place.name}.{kind}") for kind in ("partial", "former"))
    if former.exists() and not place.exists():  # a kill came between the two renamings
        former.rename(place)
    for left in (staged, former):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with explain_write_error(target):
            shutil.copytree(folder, staged)
            if place.exists():
                place.rename(former)
            staged.rename(place)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)
