"""Files by URI, local or remote, with whole-file reads and atomic writes."""

import contextlib
import errno
import io
import os
import pathlib
import re
import shutil
import stat
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import TextIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from batch_inference.storage import gcs
from trainer.errors import ConfigError, DataError
from trainer.radiograph import MAX_PIXELS

# 16-bit RGB of the largest picture that is decoded; whatever is larger cannot be one of them.
MAX_BYTES = 6 * MAX_PIXELS

_PARTIAL = ".partial"


class StorageError(OSError):
    """A file cannot be read or written; the message is one sentence without the file's name.

    Attributes:
      passing: whether the same may well succeed later: there was no answer, or no room.
    """

    def __init__(self, message: str, passing: bool = False):
        super().__init__(message)
        self.passing = passing


class OutageError(StorageError):
    """Something could not be begun for want of an answer or of room; the message is a sentence that says what, and what to do."""


class TooLargeError(StorageError):
    """The file is larger than any picture that would be decoded."""


class UnwritableError(StorageError):
    """Not this file alone cannot be written: there is no room, no right, or no answer."""


_NOTHING_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_UNWRITABLE = re.compile(
    r"\[Errno (\d+)\] ([^:\n\[]+)|UnwritableError: (.+?)(?= \[while running|\n|$)"
)


def is_remote(uri: str) -> bool:
    """Whether `uri` names something outside of the local file system, as `gs://bucket/file`."""
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """A remote URI unchanged but for trailing slashes; anything else as an absolute local path, `~` being the user's home."""
    if is_remote(uri):
        return uri.rstrip("/")
    if uri.startswith("file://"):
        uri = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return os.path.normpath(pathlib.Path(os.path.expanduser(uri)).absolute())


def real(uri: str) -> str:
    """Where something lies once all links are followed; a remote URI as it is."""
    return uri if is_remote(uri) else os.path.realpath(uri)


def is_within(inner: str, outer: str) -> bool:
    """Whether something lies in a folder, at any depth, or is that folder, once all links are followed."""
    return join(real(inner), "").startswith(join(real(outer), ""))


def join(root: str, name: str) -> str:
    """`name`, a relative path with `/` between its parts, under `root`."""
    return f"{root.rstrip('/')}/{name}"


def read(uri: str) -> bytes:
    """The content of a regular file.

    Raises:
      TooLargeError: more than `MAX_BYTES`.
      StorageError: anything else that keeps it from being read.
    """
    with told():
        contents = _read_remote(uri) if is_remote(uri) else _read_local(uri)
    if len(contents) > MAX_BYTES:
        raise TooLargeError(f"expected at most {MAX_BYTES} bytes, the file has more")
    return contents


def _read_local(path: str) -> bytes:
    # Asked before it is opened: opening a named pipe waits for ever, and so may reading what the kernel says has no size.
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        return b""
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # where this fails, it says why its files are missing
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("expected a regular file, found a folder, pipe, socket or device")
    if status.st_size > MAX_BYTES:
        raise TooLargeError(f"expected at most {MAX_BYTES} bytes, the file has {status.st_size}")
    with open(path, "rb") as file:
        return file.read()


def _read_remote(uri: str) -> bytes:
    if uri.startswith(gcs.SCHEME):
        try:
            return gcs.read(uri, MAX_BYTES)
        except gcs.LimitError as error:
            raise TooLargeError(str(error)) from error
    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read(MAX_BYTES + 1)


def open_text(uri: str) -> TextIO:
    """A text file to iterate over by lines, of any length: UTF-8 (a byte order mark is passed over), line ends as they are.

    Bytes that are no UTF-8 come as the surrogates that Python gives to such bytes of file names.

    Raises:
      StorageError: it cannot be opened.
    """
    with told():
        file = FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED)
    return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def write(uri: str, contents: bytes, mime_type: str = "application/octet-stream") -> None:
    """Writes a whole file, and its folders; readers see the former content or the new one, never a part.

    Raises:
      UnwritableError: nor could any other file there.
      StorageError: it could not be written; nothing of it is left.
    """
    try:
        if uri.startswith(gcs.SCHEME):
            gcs.write(uri, contents, mime_type)
        elif is_remote(uri):
            with FileSystems.create(uri, mime_type, CompressionTypes.UNCOMPRESSED) as file:
                file.write(contents)
        else:
            _write_local(uri, contents)
    except Exception as error:
        hopeless = gcs.is_hopeless(error) or (
            isinstance(error, OSError) and error.errno in _NOTHING_CAN_BE_WRITTEN
        )
        raise (UnwritableError if hopeless else StorageError)(
            _sentence(error), _is_passing(error)
        ) from error


def unwritable(error: Exception) -> str | None:
    """Why nothing can be written any more, where that is what made a pipeline fail, here or on a worker; else None.

    Runners add to the text of an error, or hand on one of their own that quotes it.
    """
    if isinstance(error, UnwritableError):
        return str(error).partition(" [while running")[0]
    for number, system, ours in _UNWRITABLE.findall(str(error)):
        if ours or int(number) in _NOTHING_CAN_BE_WRITTEN:
            return ours or system.strip()
    return None


def _write_local(path: str, contents: bytes) -> None:
    folder = os.path.dirname(path)
    partial = os.path.join(folder, f".{uuid.uuid4().hex}{_PARTIAL}")
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


def _fill(path: str, contents: bytes) -> None:
    with open(path, "wb") as file:
        file.write(contents)


def exists(uri: str) -> bool:
    """Whether there is a file (or a local folder) under this URI.

    Raises:
      StorageError: no bucket of that name, no access, no answer.
    """
    if not is_remote(uri):
        return os.path.lexists(uri)
    with told():
        return gcs.exists(uri) if uri.startswith(gcs.SCHEME) else FileSystems.exists(uri)


def match(pattern: str) -> Iterator[str]:
    """Yields the remote files that a glob pattern (`**` for any depth) names, one by one: Beam's own `match` holds them all.

    Raises:
      StorageError: as `exists`.
    """
    with told():
        filesystem = FileSystems.get_filesystem(pattern)
        prefix = re.match(r"[^[*?]*", pattern)[0]  # type: ignore[index]
        listed = filesystem._list(
            prefix.rpartition("/")[0] + "/" if filesystem.has_dirs() else prefix
        )
        yield from (entry.path for entry in filesystem.match_files(listed, pattern))


def names(folder: str) -> list[str]:
    """Names of what lies directly in a folder, but for files that are not wholly written; nothing where there is no such folder.

    Raises:
      StorageError: as `exists`.
    """
    with told():
        if folder.startswith(gcs.SCHEME):
            return gcs.names(folder)
        if not is_remote(folder):
            path = pathlib.Path(folder)
            return (
                sorted(entry.name for entry in path.iterdir() if not entry.name.endswith(_PARTIAL))
                if path.is_dir()
                else []
            )
    try:
        matched = FileSystems.match([join(folder, "*")])[0].metadata_list
    except BeamIOError:
        return []
    return sorted({entry.path[len(folder) + 1 :].split("/")[0] for entry in matched})


def files(folder: str) -> Iterator[str]:
    """Yields the paths of all files below a folder, relative to it and one by one; none where there is no such folder.

    Raises:
      StorageError: as `exists`.
    """
    with told():
        if is_remote(folder):
            found = (
                entry.path for entry in FileSystems.get_filesystem(folder)._list(join(folder, ""))
            )
        else:
            found = (join(place, name) for place, _, names in os.walk(folder) for name in names)
        yield from (path[len(folder) + 1 :] for path in found)


def delete(uri: str) -> None:
    """Deletes a file, or a folder with all that it holds.

    Raises:
      StorageError: it is still there.
    """
    with told():
        if uri.startswith(gcs.SCHEME):
            gcs.delete(uri)
        elif is_remote(uri):
            matched = FileSystems.match([uri, join(uri, "**")])
            FileSystems.delete([entry.path for result in matched for entry in result.metadata_list])
        elif pathlib.Path(uri).is_dir() and not pathlib.Path(uri).is_symlink():
            shutil.rmtree(uri)
        else:
            pathlib.Path(uri).unlink(missing_ok=True)


def sweep(folder: str) -> None:
    """Deletes what writers that were killed left half-written. Nobody may be writing there meanwhile."""
    if not is_remote(folder):
        for partial in pathlib.Path(folder).rglob(f".{'[0-9a-f]' * 32}{_PARTIAL}"):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def refusing(mistake: type[ValueError], what: str, advice: str) -> Iterator[None]:
    """What storage keeps a command from becomes the user's `mistake`, with what to do about it, or an outage to be outlasted.

    Raises:
      OutageError, or `mistake`.
    """
    try:
        yield
    except OutageError:
        raise
    except StorageError as error:
        if error.passing:
            raise OutageError(
                f"{what} ({error}); when that is over, start the same command again"
            ) from error
        raise mistake(f"{what} ({error}); {advice}") from error


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What storage clients raise, each its own kinds, becomes a `StorageError`."""
    try:
        yield
    except (StorageError, ConfigError, DataError):
        raise
    except Exception as error:
        raise StorageError(_sentence(error), _is_passing(error)) from error


def _is_passing(error: Exception) -> bool:
    cause = _cause(error)
    return (isinstance(cause, OSError) and cause.errno in _PASSING) or gcs.is_passing(cause)


def _cause(error: Exception) -> Exception:
    """What happened to the one file that Beam was asked for."""
    return (
        next(iter(error.exception_details.values()))
        if isinstance(error, BeamIOError) and error.exception_details
        else error
    )


def _sentence(error: Exception) -> str:
    """What went wrong in one line, without the path: a path may be long, or hold a line break."""
    error = _cause(error)
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return gcs.sentence(error) or " ".join(f"{type(error).__name__}: {error}".split())[:300]
