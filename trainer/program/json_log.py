"""Write what a command says as one JSON object per line, in the fields that log collectors know.

This covers the log, printed text and uncaught exceptions of Python. What libraries in C++ write
straight to the standard error stays as it is.
"""

import datetime
import io
import json
import logging
import sys
import traceback
from types import TracebackType
from typing import TextIO

_OBJECT = '{"time": '


class Formatter(logging.Formatter):
    """Formats `time` (UTC), `severity`, `message`, `logger` and, if there is one, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _format_line(record.levelname, record.getMessage(), **fields)


def install() -> None:
    """Write whatever this process logs, prints or raises from now on as JSON."""
    sys.stdout, sys.stderr = _JsonStream(sys.stdout, "INFO"), _JsonStream(sys.stderr, "ERROR")
    sys.excepthook = _write_exception


def unwrap(stream: TextIO) -> TextIO:
    """Return the stream below, for a document that is JSON already."""
    return stream.stream if isinstance(stream, _JsonStream) else stream


class _JsonStream(io.TextIOBase):
    """Wraps each line that is written to a text stream, unless the line is an object already."""

    def __init__(self, stream: TextIO, severity: str):
        self.stream = unwrap(stream)
        self._severity = severity
        self._unfinished = ""

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in filter(str.strip, lines):
            is_object = line.startswith(_OBJECT)
            self.stream.write((line if is_object else _format_line(self._severity, line)) + "\n")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def _write_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    message = f"{kind.__name__}: {error}"
    sys.stderr.write(_format_line("CRITICAL", message, exception=text) + "\n")


def _format_line(severity: str, message: str, **fields: str) -> str:
    """Return one object, without a line end."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "severity": severity, "message": message, **fields})
