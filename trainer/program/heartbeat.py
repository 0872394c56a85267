"""Touch a file while work makes progress, and probe the age of that file.

    python -m trainer.program.heartbeat /tmp/heartbeat 900

The probe ends with exit code 0 if the file was touched in the last 900 seconds. It finds a process
that hangs, for example in a collective operation with a host that died, or on storage that doesn't
answer. A failed probe touches a second file. A process that still receives the signal that follows
reads from it why the signal was sent.
"""

import pathlib
import sys
import time

INTERVAL = 1.0


class Heartbeat:
    """Touches a file, at most once a second."""

    def __init__(self, path: str):
        self._path = pathlib.Path(path)
        self._next = 0.0

    def beat(self) -> None:
        """Touch the file; cheap enough for every step."""
        now = time.monotonic()
        if now >= self._next:
            self._path.touch()
            self._next = now + INTERVAL

    def has_probe_failed(self) -> bool:
        """Return whether the probe has failed since the file was last touched."""
        return _read_time_touched(_failure_file(self._path)) > _read_time_touched(self._path)


def _failure_file(path: pathlib.Path) -> pathlib.Path:
    """Return the file that a failed probe touches."""
    return path.with_name(f"{path.name}.overdue")


def age(path: str | pathlib.Path) -> float:
    """Return the seconds since the file was touched; infinite if there is none."""
    return max(0.0, time.time() - _read_time_touched(path))


def _read_time_touched(path: str | pathlib.Path) -> float:
    """Return the time when the file was touched, in seconds since 1970; -inf if there is none."""
    try:
        return pathlib.Path(path).stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def main(path: str, allowed: str) -> int:
    """Return the exit code of the probe, 0 if the process is alive, otherwise 1.

    `kubectl describe pod` shows what it writes to the standard error.
    """
    if (seconds := age(path)) <= float(allowed):
        return 0
    _failure_file(pathlib.Path(path)).touch()
    since = "no sign of life yet" if seconds == float("inf") else f"no progress for {seconds:.0f} s"
    sys.stderr.write(f"{since}; allowed are {allowed} s\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
