"""What a cluster may know of a running command: its log as JSON, that it lives, and how far it is.

Every command takes these flags. `progress` and `beating` are called where work gets done; unless asked for, they do nothing.
"""

import contextlib
import logging as python_logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from absl import flags, logging

from trainer.errors import ConfigError
from trainer.program import flag_types, json_log
from trainer.program.heartbeat import Heartbeat

METRICS = {
    "last_progress_timestamp_seconds": "When the last step or image was finished, seconds since 1970.",
    "epoch": "Training: epochs that are finished.",
    "step": "Training: steps that are done, over all epochs.",
    "images_finished": "Scoring: inputs that have their row or their rejection.",
    "loss": "Training: of the epoch that was finished last.",
    "val_loss": "Training: on the validation split, after the epoch that was finished last.",
    "val_auroc": "Training: on the validation split, after the epoch that was finished last.",
    "images_per_second": "Training: of the epoch that was finished last.",
}
"""Gauges, each named `humerus_...`, and what they tell."""
_TEXTFILE_INTERVAL = 5.0
_WAITING_INTERVAL = 10.0

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "log_format",
    "text",
    ["text", "json"],
    "json: everything that is said as one object per line.",
    flag_values=FLAGS,
)
flag_types.define_path(
    "heartbeat",
    None,
    "File that is touched when work goes on; `python -m trainer.program.heartbeat` reads it.",
    FLAGS,
    schemes=(),
)
flag_types.define_whole_number(
    "metrics_port", None, "Port on which Prometheus finds the metrics.", 1, 65535, FLAGS
)
flag_types.define_path(
    "metrics_file",
    None,
    "File for the metrics, of the node exporter's textfile collector: name it *.prom.",
    FLAGS,
    schemes=(),
)
FLAGS.set_gnu_getopt(True)

T = TypeVar("T")


class _Vitals:
    """Where progress is told: a heartbeat file, Prometheus gauges, or neither."""

    def __init__(self) -> None:
        self.heartbeat: Heartbeat | None = None
        self.gauges: Gauges | None = None


class Gauges:
    """Prometheus gauges on a port, in a file, or both."""

    def __init__(self, port: int | None, textfile: str | None):
        import prometheus_client  # only where asked for

        registry = prometheus_client.CollectorRegistry()
        self._gauges = {
            name: prometheus_client.Gauge(f"humerus_{name}", told, registry=registry)
            for name, told in METRICS.items()
        }
        self._write = (
            (lambda: prometheus_client.write_to_textfile(textfile, registry))
            if textfile
            else (lambda: None)
        )
        self._next = 0.0
        self._write()
        if port:
            prometheus_client.start_http_server(port, registry=registry)

    def set(self, **values: float) -> None:
        """Sets some; the file follows every few seconds, and at once when an epoch is finished."""
        for name, value in values.items():
            self._gauges[name].set(value)
        self._gauges["last_progress_timestamp_seconds"].set_to_current_time()
        if "epoch" in values or time.monotonic() >= self._next:
            self._write()
            self._next = time.monotonic() + _TEXTFILE_INTERVAL


_vitals = _Vitals()


def start(argv: Sequence[str]) -> list[str]:
    """Takes these flags out of a command line (and out of its --flagfile), does what they ask for, and returns the rest.

    Raises:
      flags.Error: one is misspelt or out of range.
      ConfigError: a port or file that can't be had.
    """
    FLAGS.unparse_flags()
    rest = FLAGS(list(argv), known_only=True)
    if FLAGS.log_format == "json":
        json_log.install()
    try:
        _vitals.heartbeat = Heartbeat(FLAGS.heartbeat) if FLAGS.heartbeat else None
        asked = FLAGS.metrics_port or FLAGS.metrics_file
        _vitals.gauges = Gauges(FLAGS.metrics_port, FLAGS.metrics_file) if asked else None
        progress()
    except OSError as error:
        raise ConfigError(
            f"--heartbeat, --metrics_file or --metrics_port can't be had: {error}"
        ) from error
    return rest


def format_log(formatter: python_logging.Formatter | None = None) -> None:
    """Makes absl's log JSON if that was asked for, else leaves its form to `formatter`."""
    handler = logging.get_absl_handler()
    root = python_logging.getLogger()
    # Whoever logs before absl's handler is there is given one by Python, which would say all again.
    for other in [other for other in root.handlers if type(other) is python_logging.StreamHandler]:
        root.removeHandler(other)
    if FLAGS.log_format == "json":
        handler.setFormatter(json_log.Formatter())
        handler.python_handler.setStream(sys.stderr)
    elif formatter:
        handler.setFormatter(formatter)


def progress(**gauges: float) -> None:
    """Something got done; `gauges` of `METRICS` tell how much."""
    if _vitals.heartbeat:
        _vitals.heartbeat.beat()
    if _vitals.gauges:
        _vitals.gauges.set(**gauges)


def beating(items: Iterable[T]) -> Iterator[T]:
    """The same items; each that is asked for is a sign of life."""
    for item in items:
        progress()
        yield item


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Signs of life all through the block, which waits for other machines: however long they take to come, that is no hang."""
    over = threading.Event()

    def beat() -> None:
        while _vitals.heartbeat and not over.wait(_WAITING_INTERVAL):
            _vitals.heartbeat.beat()

    beats = threading.Thread(target=beat, daemon=True)
    beats.start()
    try:
        yield
    finally:
        over.set()
        beats.join()


def given_up() -> bool:
    """Whether the liveness probe has failed since anything got done: the signal that comes now is meant for a process that hangs."""
    return bool(_vitals.heartbeat and _vitals.heartbeat.given_up())
