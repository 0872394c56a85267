"""Everything that a command says as one JSON object per line, in the fields that log collectors know.

Python's own lines are written as objects. What libraries in C++ write to the standard error is wrapped by a process that follows
it, this file run as a script: a thread of this process would take the last words of a crash with it. In a container, so would
process 1, with which the kernel ends all others; there the work goes on in a child of it.
"""

import contextlib
import datetime
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import traceback
from types import TracebackType
from typing import TextIO

_OBJECT = '{"time": '
_CPP = re.compile(r"([IWEF])\d{4} ")
_SEVERITIES = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_STOPS = (signal.SIGTERM, signal.SIGINT)
_LAST_WORDS_SECONDS = 10.0


class Formatter(logging.Formatter):
    """`time` (UTC), `severity`, `message`, `logger`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return line(record.levelname, record.getMessage(), **fields)


def line(severity: str, message: str, **fields: str) -> str:
    """One object, without its line end."""
    now = datetime.datetime.now(datetime.UTC)
    return json.dumps(
        {
            "time": now.isoformat(timespec="milliseconds"),
            "severity": severity,
            "message": message,
            **fields,
        }
    )


def install() -> None:
    """From now on, what is logged, printed or raised in this process comes out as JSON. Call it before there are threads."""
    stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    read, write = os.pipe()
    follower = subprocess.Popen(
        [sys.executable, "-I", __file__], stdin=read, stdout=stderr, start_new_session=True
    )
    os.close(read)
    if os.getpid() == 1:
        _go_on_in_a_child(follower, write)
    os.dup2(write, 2)
    os.close(write)
    sys.stdout, sys.stderr = _Lines(sys.stdout, "INFO"), _Lines(stderr, "ERROR")

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        stderr.write(line("CRITICAL", f"{kind.__name__}: {error}", exception=text) + "\n")

    sys.excepthook = uncaught


def _go_on_in_a_child(follower: subprocess.Popen, write: int) -> None:
    """Returns in a child. Process 1 stays behind: it hands signals on, and ends as the child did, once the follower has said the rest.

    Args:
      write: the end of the pipe that the follower reads until nobody holds it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    child = os.fork()
    if not child:
        # Else a terminal's Ctrl-C would reach the child twice.
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        return

    def hand_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _STOPS:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    os.close(write)
    ended, status = os.wait()
    while ended != child:
        ended, status = os.wait()
    with contextlib.suppress(subprocess.TimeoutExpired):
        follower.wait(_LAST_WORDS_SECONDS)
    code = os.waitstatus_to_exitcode(status)
    # As a shell calls an end by a signal.
    os._exit(code if code >= 0 else 128 - code)


def unwrapped(stream: TextIO) -> TextIO:
    """The stream itself, for a document that is JSON already."""
    return stream._stream if isinstance(stream, _Lines) else stream


class _Lines(io.TextIOBase):
    """A text stream that wraps each line written to it, unless that is an object already."""

    def __init__(self, stream: TextIO, severity: str):
        self._stream = stream
        self._severity = severity
        self._begun = ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for said in filter(str.strip, whole):
            self._stream.write(
                (said if said.startswith(_OBJECT) else line(self._severity, said)) + "\n"
            )
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def follow() -> None:
    """Wraps what comes on the standard input until its writers are gone."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    for raw in sys.stdin.buffer:
        if said := raw.decode(errors="backslashreplace").rstrip():
            level = _CPP.match(said)
            sys.stdout.write(
                line(_SEVERITIES[level[1]] if level else "INFO", said, logger="c++") + "\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    follow()
