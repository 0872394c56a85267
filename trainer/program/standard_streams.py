"""Prepare the standard streams that a caller has closed, and write to them."""

import contextlib
import os
import sys
from typing import TextIO

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed() -> None:
    """Connect closed standard streams to the null device.

    Otherwise the next file that is opened gets the number of a closed stream, and receives what
    libraries in C++ write there. Python's own streams are None then.
    """
    for number in range(len(_STREAMS)):
        try:
            os.fstat(number)
        except OSError:
            _connect_to_null(number)
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def write(text: str, stream: TextIO) -> None:
    """Write a text to a standard stream, unless its reader has ended, as `head` does.

    Raises:
      OSError: it cannot be written. Whatever is written later is lost without an error.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # Otherwise Python would report the same error once more when it ends.
        with contextlib.suppress(OSError):
            _connect_to_null(stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(
                f"the standard output can't be written ({error.strerror}); "
                "remove the cause, or send the output to another place"
            ) from error


def _connect_to_null(number: int) -> None:
    """Connect a file descriptor to the null device, for child processes too."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(null, number)
        os.close(null)
