"""How far the embedded runner is: a line on a terminal that rewrites itself, nothing elsewhere."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class _Tally:
    """How many inputs this process has finished."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.finished = 0

    def advance(self) -> None:
        with self._lock:
            self.finished += 1


_tally = _Tally()


def advance() -> None:
    """One more input has its row or rejection."""
    _tally.advance()


@contextmanager
def shown(total: int | None) -> Iterator[None]:
    """Shows inputs done in this process while the block runs, of `total` where it is known, and how many per second."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    start = _tally.finished
    with tqdm(total=total, unit=" images", dynamic_ncols=True) as bar:

        def follow() -> None:
            while not over.wait(0.3):
                bar.update(_tally.finished - start - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bar.update(_tally.finished - start - bar.n)
