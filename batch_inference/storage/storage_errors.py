"""Turn the errors of all storage clients into one kind, with one sentence each."""

import contextlib
import errno
import re
from collections.abc import Iterator

from apache_beam.io.filesystem import BeamIOError

from batch_inference.storage import gcs
from trainer.errors import ConfigError, DataError, StorageOutageError
from trainer.files import regular_file

_NOTHING_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_UNWRITABLE = re.compile(
    r"\[Errno (\d+)\] ([^:\n\[]+)|UnwritableError: (.+?)(?= \[while running|\n|$)"
)


class StorageError(OSError):
    """A file cannot be read or written; the message is one sentence without the file's name.

    Attributes:
      temporary: whether the same may succeed later: there was no answer, or no room.
    """

    def __init__(self, message: str, temporary: bool = False):
        super().__init__(message)
        self.temporary = temporary


class TooLargeError(StorageError):
    """The file is larger than any picture that is decoded."""


class UnwritableError(StorageError):
    """No file can be written there: there is no room, no right, or no answer."""


def translate_write_error(error: Exception) -> StorageError:
    """Return the error of a write that failed: `UnwritableError` where no other would succeed."""
    final = gcs.refuses_all_writes(error) or (
        isinstance(error, OSError) and error.errno in _NOTHING_CAN_BE_WRITTEN
    )
    kind = UnwritableError if final else StorageError
    return kind(_describe(error), _is_temporary(error))


def find_write_failure(error: Exception) -> str | None:
    """Return why nothing can be written, if that made a pipeline fail, here or on a worker.

    Runners add to the text of an error, or raise an error of their own that quotes it.
    """
    if isinstance(error, UnwritableError):
        return str(error).partition(" [while running")[0]
    for number, system, ours in _UNWRITABLE.findall(str(error)):
        if ours or int(number) in _NOTHING_CAN_BE_WRITTEN:
            return ours or system.strip()
    return None


@contextlib.contextmanager
def explain_failure(mistake: type[ValueError], what: str, advice: str) -> Iterator[None]:
    """Add to a storage error what failed and what to do about it.

    Raises:
      StorageOutageError: the storage error is temporary: no answer, or no room.
      mistake: it is not, so that the user must correct something, as `advice` says.
    """
    try:
        yield
    except StorageError as error:
        if error.temporary:
            raise StorageOutageError(
                f"{what} ({error}); when that is over, start the same command again"
            ) from error
        raise mistake(f"{what} ({error}); {advice}") from error


@contextlib.contextmanager
def explain_write_failure(what: str) -> Iterator[None]:
    """Name the file in a write error, and say what to do."""
    try:
        yield
    except StorageError as error:
        raise type(error)(
            f"{what} cannot be written ({error}); remove the cause and start the same command"
            " again",
            error.temporary,
        ) from error


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the errors of all storage clients as `StorageError`."""
    try:
        yield
    except (StorageError, StorageOutageError, ConfigError, DataError):
        raise
    except regular_file.TooLargeError as error:
        raise TooLargeError(str(error)) from error
    except Exception as error:
        raise StorageError(_describe(error), _is_temporary(error)) from error


def _is_temporary(error: Exception) -> bool:
    cause = _cause(error)
    return (isinstance(cause, OSError) and cause.errno in _PASSING) or gcs.is_temporary(cause)


def _cause(error: Exception) -> Exception:
    """Return the error of the one file that Beam was asked for."""
    return (
        next(iter(error.exception_details.values()))
        if isinstance(error, BeamIOError) and error.exception_details
        else error
    )


def _describe(error: Exception) -> str:
    """Describe an error in one line, without the path, which may be long or hold a line break."""
    error = _cause(error)
    if isinstance(error, StorageError | regular_file.NotRegularError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return gcs.describe_error(error) or " ".join(f"{type(error).__name__}: {error}".split())[:300]
