"""Show how far the workers in this process are: a progress bar on a terminal, else log lines."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from absl import logging
from tqdm import tqdm

from trainer.program import telemetry
from trainer.program.repeat import call_every

_TERMINAL_SECONDS = 0.3
_LOG_SECONDS = 60.0


_lock = threading.Lock()
_finished = 0
"""The number of inputs that this process has finished."""


def advance() -> None:
    """Count one more input that has its row or rejection."""
    global _finished
    with _lock:
        _finished += 1
    telemetry.report_progress(images_finished=_finished)


@contextmanager
def show(total: int | None, in_this_process: bool = True) -> Iterator[None]:
    """Show, while the block runs, how many inputs this process has finished, and how fast.

    Args:
      total: number of inputs; None where it is not known.
      in_this_process: False shows nothing, as the runner shows how far other processes are.
    """
    if not in_this_process:
        yield
        return
    terminal = sys.stderr.isatty()
    start = _finished
    with tqdm(total=total, unit=" images", dynamic_ncols=True, disable=not terminal) as bar:

        def follow() -> None:
            done = _finished - start
            if terminal:
                bar.update(done - bar.n)
            else:
                logging.info("%d of %s inputs done", done, total or "?")

        try:
            with call_every(_TERMINAL_SECONDS if terminal else _LOG_SECONDS, follow):
                yield
        finally:
            bar.update(_finished - start - bar.n)
