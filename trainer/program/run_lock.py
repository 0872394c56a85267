"""One run per folder: a second command that would write to the same results is refused.

The lock is the kernel's (`flock`): it goes with the process that holds it, however that ends, so
that a killed run keeps nobody waiting. It holds among the processes of one machine, and among
machines where their shared file system passes locks on, as NFS does. Folders in a bucket have none.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from absl import logging

from trainer import storage
from trainer.errors import ConfigError

LOCK_FILE = ".humerus-lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def hold(folder: str) -> Iterator[None]:
    """Hold the lock of a folder during the block; make the folder where it is missing.

    Where the lock file cannot be written the block runs without a lock: whatever it writes first
    fails for the same reason, and says so.

    Raises:
      ConfigError: another run holds the lock.
    """
    if storage.is_remote(folder):
        yield
        return
    path = pathlib.Path(folder) / LOCK_FILE
    try:
        descriptor = _lock(path)
    except BlockingIOError:
        raise ConfigError(
            f"{folder} is being written by {_read_holder(path)}; stop that run or wait for its end,"
            " or choose another folder"
        ) from None
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            logging.warning("nothing keeps other runs away from %s: %s", folder, error.strerror)
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: pathlib.Path) -> int:
    """Return the descriptor of the locked file, which names this process.

    Raises:
      BlockingIOError: another process has locked it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former holder may have deleted the file between the two calls.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, _describe_holder().encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _describe_holder() -> str:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})


def _read_holder(path: pathlib.Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
