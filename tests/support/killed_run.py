"""Score in a process of its own that is killed in the middle, as by `kill -9`.

    python -m tests.support.killed_run MOMENT FOLDER FLAG...

Moments are counted, not timed: each time that a file or folder below FOLDER is opened, renamed,
made or deleted, by whatever code. At the MOMENT-th the process is no more. At 0 nothing happens;
either way that it ends by itself, their number is the last line.
"""

import os
import signal
import sys
import threading

_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}


class Moments:
    """Counts what happens below a folder, and kills this process at one of them."""

    def __init__(self, folder: str, last: int):
        self.seen = 0
        self._folder = folder
        self._last = last
        self._lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple) -> None:
        if event in _EVENTS and arguments and str(arguments[0]).startswith(self._folder):
            with self._lock:
                self.seen += 1
                if self.seen == self._last:
                    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    moment, folder, *flags = sys.argv[1:]
    moments = Moments(folder, int(moment))
    sys.addaudithook(moments)
    from batch_inference.main import score
    from batch_inference.outputs import cam_store, journal

    # Small parts and packs, so that there are some within a few images.
    journal.ROWS_PER_PART = cam_store.MAPS_PER_PACK = 3
    code = score(["humerus-score", *flags])
    print(moments.seen)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
