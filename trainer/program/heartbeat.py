"""A file whose age tells whether work goes on, and the probe that reads it.

    python -m trainer.program.heartbeat /tmp/heartbeat 900     # exit code 0: the last sign of life is at most 900 seconds old

A process that hangs, in a collective whose peer died or on storage that doesn't answer, doesn't crash: by itself nobody would
restart it. What the probe found, it notes beside the file, so that a process which can still hear the signal that follows knows
why it came.
"""

import pathlib
import sys
import time

_INTERVAL = 1.0


class Heartbeat:
    """Touches a file, at most once a second."""

    def __init__(self, path: str):
        self._path = pathlib.Path(path)
        self._next = 0.0

    def beat(self) -> None:
        """Notes a sign of life; cheap enough for every step."""
        now = time.monotonic()
        if now >= self._next:
            self._path.touch()
            self._next = now + _INTERVAL

    def given_up(self) -> bool:
        """Whether the probe has failed since the last sign of life."""
        return age(_note(self._path)) < age(self._path)


def _note(path: pathlib.Path) -> pathlib.Path:
    """What the probe touches when it fails."""
    return path.with_name(f"{path.name}.overdue")


def age(path: str | pathlib.Path) -> float:
    """Seconds since the last sign of life; infinite where there never was one."""
    try:
        return max(0.0, time.time() - pathlib.Path(path).stat().st_mtime)
    except FileNotFoundError:
        return float("inf")


def main(path: str, allowed: str) -> int:
    """Exit code of the probe: 0 alive, 1 not; what it says is shown by `kubectl describe pod`."""
    if (seconds := age(path)) <= float(allowed):
        return 0
    _note(pathlib.Path(path)).touch()
    since = "no sign of life yet" if seconds == float("inf") else f"no progress for {seconds:.0f} s"
    sys.stderr.write(f"{since}; allowed are {allowed} s\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
