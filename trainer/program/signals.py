"""Handle SIGTERM and SIGINT, as docs/stopping.md describes for users.

`interrupt_on_signals` ends a command that has nothing to save. `RecordedSignals` lets training
write a checkpoint first. Outside the main thread, both do nothing: signals belong to others there.
"""

import contextlib
import logging as python_logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from trainer.errors import EXIT_STOPPED

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 8.0
"""Time from a signal to the end of a command that Python code could not end, as in native code."""
_REPEAT_SECONDS = 0.1


class Interruption:
    """Records whether a signal has come to a command."""

    def __init__(self) -> None:
        self.arrived = False


@contextlib.contextmanager
def interrupt_on_signals(name: str, advice: str) -> Iterator[Interruption]:
    """Raise `KeyboardInterrupt` in the block at a signal, and end the process if it goes on.

    The first process of a container does not die of SIGTERM by itself. While native code runs, the
    main thread can neither call a handler nor raise: another thread, which reads the numbers of
    signals from a pipe, then ends the process after `GRACE_SECONDS`.

    Args:
      name: the command, for the message.
      advice: what a user may do next.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.arrived:  # the watchdog ends the process if the first one did not
            return
        interruption.arrived = True
        # The interruption breaks work in progress; its error messages are no news.
        python_logging.disable()
        raise KeyboardInterrupt

    with (
        _handle_signals(interrupt),
        _watchdog(f"{name}: stopped; {advice}\n"),
        _repeat_ignored(interruption),
    ):
        yield interruption


@contextlib.contextmanager
def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    earlier = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, former in earlier.items():
            signal.signal(number, former)


@contextlib.contextmanager
def _repeat_ignored(interruption: Interruption) -> Iterator[None]:
    """Interrupt again where Python ignores a `KeyboardInterrupt`, as it does in a `__del__`."""
    former = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            former(ignored)
            return
        interruption.arrived = False
        # Later, as whatever is raised in this function is ignored too.
        timer = threading.Timer(_REPEAT_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former
        for timer in timers:
            timer.cancel()
            timer.join()  # one that is just sending its signal does so while handlers are ours


@contextlib.contextmanager
def _watchdog(message: str) -> Iterator[None]:
    """End the process some seconds after a signal that `interrupt` is to handle.

    Python writes each signal's number to the pipe at once, also while the main thread is in native
    code. A zero ends the watch.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    former = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    over = threading.Event()

    def watch() -> None:
        while number := os.read(read, 1)[0]:
            # Training records signals while it has something to save.
            if number in STOP_SIGNALS and not _recording:
                if not over.wait(GRACE_SECONDS):
                    end_process(message, EXIT_STOPPED)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(former)
        os.write(write, b"\0")
        thread.join()
        os.close(read)
        os.close(write)


def end_process(message: str, code: int) -> NoReturn:
    """End this process at once from any thread, with a last line on stderr."""
    with contextlib.suppress(OSError):
        sys.stderr.write(message)
        sys.stderr.flush()
    os._exit(code)


def stop_with_parent() -> None:
    """Send this process SIGTERM when its parent dies, even of SIGKILL.

    Standard input must be a pipe from the parent to which nobody writes.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="wait-for-parent").start()


_recording: list["RecordedSignals"] = []
"""The `RecordedSignals` that are entered now."""


class RecordedSignals:
    """Records SIGTERM and SIGINT while entered; a second SIGINT raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.name = ""
        """Name of the last signal; empty before the first."""
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "RecordedSignals":
        if threading.current_thread() is threading.main_thread():
            _recording.append(self)
            for number in STOP_SIGNALS:
                self._former[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self._former:
            _recording.remove(self)
        # A signal that came when nothing was left to stop here is passed on.
        if self.name and kind is None:
            signal.raise_signal(signal.Signals[self.name])

    def arrived(self) -> bool:
        """Return whether a signal has asked this process to stop."""
        return bool(self.name)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.name == signal.Signals(number).name == "SIGINT":
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


def _leave_pipe_of_parent() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


# A signal that a forked process gets is no reason to end its parent.
os.register_at_fork(after_in_child=_leave_pipe_of_parent)
