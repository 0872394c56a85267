"""Say how far a piece of work is: a bar with the time to go on a terminal, else lines in a log."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from absl import logging

from trainer.program import telemetry

T = TypeVar("T")
LOG_SECONDS = 20.0
"""Time between two lines of a log; work that ends before has none."""


def show_each(items: Collection[T], what: str, unit: str = "batches") -> Iterator[T]:
    """Yield the items, report progress for each, and say how long the rest will take.

    Args:
      items: what is worked on.
      what: what is done with them, such as `scoring`.
      unit: what they are, in the plural.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        shown = tqdm(items, desc=what, unit=f" {unit}", dynamic_ncols=True, leave=False)
        yield from telemetry.report_each(shown)
        return
    start = told = time.monotonic()
    for done, item in enumerate(telemetry.report_each(items)):
        now = time.monotonic()
        if now - told >= LOG_SECONDS:
            told, to_go = now, (now - start) / done * (len(items) - done)
            logging.info(
                "%s: %d of %d %s, %.0f s to go", what.capitalize(), done, len(items), unit, to_go
            )
        yield item
