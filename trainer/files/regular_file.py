"""Read a local file, refusing pipes, devices and huge sparse files."""

import errno
import io
import os
import pathlib
import stat


class NotRegularError(OSError):
    """The path names a folder, pipe, socket or device; the message says so in a sentence without
    the path."""


class TooLargeError(OSError):
    """The file is larger than allowed; the message says so in a sentence without the path."""


def read(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raise as `open_file`."""
    with open_file(path, limit) as file:
        content = file.read()
    if len(content) > limit:  # it has grown meanwhile
        raise _too_large(limit, len(content))
    return content


def open_file(path: str, limit: int) -> io.BufferedIOBase:
    """Open a regular file of at most `limit` bytes; never wait for somebody to write.

    Raises:
      NotRegularError: it is another kind of file.
      TooLargeError: it has more bytes.
      OSError: it cannot be opened.
    """
    # Asked before it is opened: to open a device may have an effect.
    try:
        status = pathlib.Path(path).stat()
    except ValueError as error:  # a NUL byte
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
    _check(path, status, limit)
    if not status.st_size:
        # Also what the kernel makes up as it is read (/proc), which may have no end.
        return io.BytesIO()
    # Without O_NONBLOCK, opening a named pipe that has taken the file's place waits for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check(path, os.fstat(file.fileno()), limit)
    except BaseException:
        file.close()
        raise
    return file


def _check(path: str, status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.scandir(path).close()  # where this fails, it says why its files are missing
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError("expected a regular file, found a folder, pipe, socket or device")
    if status.st_size > limit:
        raise _too_large(limit, status.st_size)


def _too_large(limit: int, found: int) -> TooLargeError:
    return TooLargeError(f"expected at most {limit} bytes, the file has {found}")
