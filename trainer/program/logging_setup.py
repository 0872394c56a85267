"""Configure logging: show our own messages and the errors of libraries, and hide the rest."""

import contextlib
import logging as python_logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

from absl import flags, logging

from trainer.program import json_log, telemetry
from trainer.program.text_escaping import escape_control_characters

_OURS = tuple(
    f"{pathlib.Path(__file__).parents[1].with_name(package)}{os.sep}"
    for package in ("trainer", "batch_inference")
)


class _TerminalFormatter(python_logging.Formatter):
    def formatMessage(self, record: python_logging.LogRecord) -> str:
        if record.pathname.startswith(_OURS):  # a line end is that of a name from outside
            record.message = record.message.replace("\n", "\\n")
        return super().formatMessage(record)

    def format(self, record: python_logging.LogRecord) -> str:
        return escape_control_characters(super().format(record))


def configure_logs() -> None:
    """Set the log levels of libraries and the format of our messages.

    Levels in the user's environment variables take precedence.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not sys.warnoptions:
        python_logging.captureWarnings(True)
    # absl logs only after its own flags were parsed.
    flags.FLAGS(["humerus"])
    logging.use_absl_handler()
    logging.set_stderrthreshold("info")
    # TensorFlow resets the level to this one after it has written a SavedModel.
    logging.set_verbosity(logging.INFO)
    # absl hands its own level to the root logger, and with it to every library.
    # Beam both logs and raises the error of a worker in this process; one message is enough.
    levels = {None: "ERROR", "apache_beam.runners.common": "CRITICAL", "absl": "INFO"}
    for name, level in levels.items():
        python_logging.getLogger(name).setLevel(level)
    handler = logging.get_absl_handler()
    if _is_ours not in handler.filters:
        handler.addFilter(_is_ours)
    # Python adds a handler for messages before absl's exists. It would repeat all others.
    root = python_logging.getLogger()
    for other in [other for other in root.handlers if type(other) is python_logging.StreamHandler]:
        root.removeHandler(other)
    if telemetry.FLAGS.log_format == "json":
        handler.setFormatter(json_log.Formatter())
        handler.python_handler.setStream(sys.stderr)
    else:
        handler.setFormatter(
            _TerminalFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        )


def _is_ours(record: python_logging.LogRecord) -> bool:
    """Return whether to show a record: our own ones, and errors of libraries that log with absl."""
    return record.levelno >= python_logging.ERROR or record.pathname.startswith(_OURS)


def import_tensorflow() -> None:
    """Import TensorFlow without messages that ignore log levels (tensorflow/tensorflow#100442)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    with _hold_back_native_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _hold_back_native_stderr() -> Iterator[None]:
    """Discard what native code writes to stderr in the block; write it out if the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
