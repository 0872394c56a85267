"""Repeat something in the background while a block runs."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def call_every(seconds: float, function: Callable[[], object]) -> Iterator[None]:
    """Call a function on a thread of its own, for the first time after `seconds`."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            function()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
