"""Report to a cluster how a command runs: its log as JSON, a heartbeat file and metrics.

Every command takes the flags of this module. The work calls `report_progress`, which does nothing
without these flags.
"""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from absl import flags

from trainer.errors import ConfigError
from trainer.program import json_log, path_checks
from trainer.program.flags_from_dataclass import define_flags, option
from trainer.program.heartbeat import Heartbeat
from trainer.program.repeat import call_every

METRICS = {
    "last_progress_timestamp_seconds": "Time of the last finished step or image, since 1970.",
    "epoch": "Training: finished epochs.",
    "step": "Training: finished steps, over all epochs.",
    "images_finished": "Scoring: inputs that have a row or a rejection.",
    "loss": "Training: value of the last finished epoch.",
    "val_loss": "Training: value on the validation split after the last finished epoch.",
    "val_auroc": "Training: value on the validation split after the last finished epoch.",
    "images_per_second": "Training: value of the last finished epoch.",
}
"""Name of each gauge, without its prefix `humerus_`, and its description."""
_TEXTFILE_INTERVAL = 5.0
WAITING_INTERVAL = 10.0


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of every command."""

    log_format: str = option(
        "json: write the log and all output as one JSON object per line.",
        "text",
        choices=("text", "json"),
    )
    heartbeat: str | None = option(
        "File to touch as work makes progress; `python -m trainer.program.heartbeat` reads it.",
        None,
        schemes=(),
    )
    metrics_port: int | None = option(
        "Port that serves the metrics to Prometheus.", None, low=1, high=65535
    )
    metrics_file: str | None = option(
        "File for the metrics, for the node exporter's textfile collector; name it *.prom.",
        None,
        schemes=(),
    )


FLAGS = flags.FlagValues()
define_flags(Options, FLAGS)
FLAGS.set_gnu_getopt(True)

T = TypeVar("T")


class _Sinks:
    """The places that progress is reported to: a heartbeat file, gauges, both or none."""

    def __init__(self) -> None:
        self.heartbeat: Heartbeat | None = None
        self.gauges: Gauges | None = None


class Gauges:
    """Prometheus gauges on a port, in a file, or both."""

    def __init__(self, port: int | None, textfile: str | None):
        import prometheus_client  # It is needed only with these flags.

        registry = prometheus_client.CollectorRegistry()
        self._gauges = {
            name: prometheus_client.Gauge(f"humerus_{name}", text, registry=registry)
            for name, text in METRICS.items()
        }
        self._write = (
            (lambda: prometheus_client.write_to_textfile(textfile, registry))
            if textfile
            else (lambda: None)
        )
        self._next = 0.0
        self._write()
        self._server = (
            prometheus_client.start_http_server(port, registry=registry)[0] if port else None
        )

    def set(self, **values: float) -> None:
        """Set some gauges; write the file every few seconds, and at the end of each epoch."""
        for name, value in values.items():
            self._gauges[name].set(value)
        self._gauges["last_progress_timestamp_seconds"].set_to_current_time()
        if "epoch" in values or time.monotonic() >= self._next:
            self._write()
            self._next = time.monotonic() + _TEXTFILE_INTERVAL

    def close(self) -> None:
        """Leave the port to another process."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


_sinks = _Sinks()


def start(argv: Sequence[str]) -> list[str]:
    """Parse the flags of this module, start what they ask for, and return the other arguments.

    It reads a --flagfile too.

    Raises:
      flags.Error: a flag is misspelt or out of range.
      ConfigError: a port or file cannot be used, or a --flagfile is not text in UTF-8.
    """
    FLAGS.unparse_flags()
    try:
        rest = FLAGS(list(argv), known_only=True)
    except UnicodeDecodeError as error:
        named = " or ".join(word for word in argv if word.lstrip("-").startswith("flagfile"))
        raise ConfigError(
            f"{named} is not text in UTF-8 ({error.reason}); save the file in UTF-8"
        ) from error
    if FLAGS.log_format == "json":
        json_log.install()
    used = [name for name in ("heartbeat", "metrics_file", "metrics_port") if FLAGS[name].value]
    if FLAGS.metrics_file:
        path_checks.check_file_writable("metrics_file", FLAGS.metrics_file)
    try:
        _sinks.heartbeat = Heartbeat(FLAGS.heartbeat) if FLAGS.heartbeat else None
        has_metrics = FLAGS.metrics_port or FLAGS.metrics_file
        _sinks.gauges = Gauges(FLAGS.metrics_port, FLAGS.metrics_file) if has_metrics else None
        report_progress()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        flags_used = " or ".join(f"--{name}" for name in used)
        raise ConfigError(f"{flags_used} cannot be used: {error}") from error
    return rest


def report_progress(**gauges: float) -> None:
    """Report a finished piece of work, and set gauges of `METRICS`."""
    if _sinks.heartbeat:
        _sinks.heartbeat.beat()
    if _sinks.gauges:
        _sinks.gauges.set(**gauges)


def report_each(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, and report progress for each."""
    for item in items:
        report_progress()
        yield item


@contextlib.contextmanager
def keep_alive() -> Iterator[None]:
    """Touch the heartbeat file throughout the block, which may wait long for other machines."""
    if not _sinks.heartbeat:
        yield
        return
    with call_every(WAITING_INTERVAL, _sinks.heartbeat.beat):
        yield


def hand_over() -> list[str]:
    """Stop reporting metrics, and return the flags with which child processes report instead."""
    if _sinks.gauges:
        _sinks.gauges.close()
        _sinks.gauges = None
    return [f"--{name}={FLAGS[name].value}" for name in FLAGS if FLAGS[name].present]


def has_probe_failed() -> bool:
    """Return whether the liveness probe has failed since the last progress.

    A signal that comes then is meant to end a process that hangs.
    """
    return bool(_sinks.heartbeat and _sinks.heartbeat.has_probe_failed())
