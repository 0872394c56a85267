"""Allow one run per folder: refuse a second command that would write to the same results.

The lock of a local folder is the kernel's (`flock`): it goes with the process that holds it,
however that ends, so that a killed run keeps nobody waiting. It holds among the processes of one
machine, and among machines where their shared file system passes locks on, as NFS does. A folder on
`gs://` has a lease, as `bucket_lease` describes. Folders on other storage have neither.
"""

import contextlib
import datetime
import errno
import fcntl
import functools
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from absl import logging

from trainer import storage
from trainer.errors import EXIT_FAILURE, ConfigError
from trainer.files import urls
from trainer.program import signals

if TYPE_CHECKING:
    from google.cloud.storage import Client

LOCK_FILE = ".humerus-lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def hold(
    folder: str, command: str, make_client: Callable[[], "Client"] | None = None
) -> Iterator[None]:
    """Hold the lock of a folder during the block; make the folder where it is missing.

    Where no lock can be written the block runs without one: whatever it writes first fails for the
    same reason, and says so. Where a bucket's lease is lost, the process ends at once: another run
    may write there by now.

    Args:
      folder: where the results go.
      command: name of the command, for its last sentence.
      make_client: returns the client of a bucket; by default one with the credentials of the
        environment.

    Raises:
      ConfigError: another run holds the lock.
      StorageOutageError: the bucket does not answer.
    """
    if urls.split_url(folder)[0] == "gs":
        with _hold_lease(folder, command, make_client):
            yield
        return
    if storage.is_remote(folder):
        yield
        return
    path = pathlib.Path(folder) / LOCK_FILE
    try:
        descriptor = _lock(path)
    except BlockingIOError:
        raise ConfigError(_describe_conflict(folder, _read_holder(path))) from None
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            logging.warning("%s is not locked against other runs: %s", folder, error.strerror)
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def _hold_lease(
    folder: str, command: str, make_client: Callable[[], "Client"] | None
) -> Iterator[None]:
    # Google's client takes a while to import, and most folders are local.
    from google.cloud.storage import Client

    from trainer.program import bucket_lease

    def stop(reason: str) -> None:
        signals.end_process(
            f"{command}: stopped, as {folder} {reason}; wait for the end of any other run on that"
            " folder, then run the same command again\n",
            EXIT_FAILURE,
        )

    lease = bucket_lease.hold(
        folder.rstrip("/"),
        LOCK_FILE,
        _identify_holder(),
        _describe_holder,
        stop,
        make_client or functools.partial(Client, None),
    )
    try:
        with lease:
            yield
    except bucket_lease.LeaseError as error:
        raise ConfigError(_describe_conflict(folder, str(error))) from None


def _describe_conflict(folder: str, holder: str) -> str:
    return (
        f"{folder} is being written by {holder}; stop that run or wait for its end,"
        " or choose another folder"
    )


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
                os.pwrite(descriptor, json.dumps(_identify_holder()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _identify_holder() -> dict[str, Any]:
    """Return host, process and time, by which others know this process."""
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def _read_holder(path: pathlib.Path) -> str:
    try:
        return _describe_holder(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _describe_holder("")


def _describe_holder(content: str) -> str:
    """Return the words for the holder that a lock file names."""
    try:
        holder = json.loads(content)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another run"
