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
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from trainer.errors import EXIT_STOPPED

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 8.0
"""Time from a signal to the end of a command that Python code could not end, as in native code."""
_POLL_SECONDS = 0.1


class Interruption:
    """The end of a command by a signal, through a handler or else a watchdog.

    The first process of a container does not die of SIGTERM by itself. While native code runs, the
    main thread can neither call a handler nor raise. The watchdog is another thread, which reads
    the numbers of signals from a pipe; Python writes them there at once.

    | A signal comes | handler | watchdog |
    |---|---|---|
    | in Python code | raises `KeyboardInterrupt` | ends the process after `GRACE_SECONDS` |
    | in native code | is called too late | ends the process after `GRACE_SECONDS` |
    | where exceptions are ignored, as in a `__del__` | raises in vain | sends another signal |
    | after another signal | does nothing | waits for the end of its time |
    | in `RecordedSignals` | is replaced | does nothing |
    | in a forked process | is inherited | is not told |

    Attributes:
      arrived: whether a signal has come.
      is_over: set when the command has ended.
    """

    def __init__(self, message: str):
        """Take the last line of a command that the watchdog ends."""
        self.arrived = False
        self.is_over = threading.Event()
        self._message = message
        self._was_ignored = False
        self._former_hook = sys.unraisablehook

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `KeyboardInterrupt` at the first signal."""
        if self.arrived:
            return
        self.arrived = True
        # The interruption breaks work in progress; its error messages are no news.
        python_logging.disable()
        raise KeyboardInterrupt

    def notice_ignored(self, ignored: "sys.UnraisableHookArgs") -> None:
        """Note that Python ignores the interruption; pass on any other exception."""
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            self.arrived, self._was_ignored = False, True
        else:
            self._former_hook(ignored)

    def watch(self, pipe: int) -> None:
        """Read signals from the pipe, and end the process in time; a zero ends the watch."""
        while (number := os.read(pipe, 1)[0]) not in STOP_SIGNALS or _is_recorded(number):
            if not number:
                return
        deadline = time.monotonic() + GRACE_SECONDS
        while not self.is_over.wait(_POLL_SECONDS):
            if self._was_ignored:
                self._was_ignored = False
                os.kill(os.getpid(), signal.SIGINT)
            if time.monotonic() >= deadline:
                end_process(self._message, EXIT_STOPPED)
                return


@contextlib.contextmanager
def interrupt_on_signals(name: str, advice: str) -> Iterator[Interruption]:
    """Raise `KeyboardInterrupt` in the block at a signal, and end the process if it goes on.

    Args:
      name: the command, for the message.
      advice: what a user may do next.
    """
    interruption = Interruption(f"{name}: stopped; {advice}\n")
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    with _handle_signals(interruption.handle):
        read, write = os.pipe()
        os.set_blocking(write, False)
        former_pipe = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        former_hook, sys.unraisablehook = sys.unraisablehook, interruption.notice_ignored
        watchdog = threading.Thread(target=interruption.watch, args=(read,), daemon=True)
        watchdog.start()
        try:
            yield interruption
        finally:
            interruption.is_over.set()
            sys.unraisablehook = former_hook
            signal.set_wakeup_fd(former_pipe)
            os.write(write, b"\0")
            watchdog.join()  # if it is sending a signal, handlers are still ours
            os.close(read)
            os.close(write)


@contextlib.contextmanager
def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    earlier = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, former in earlier.items():
            signal.signal(number, former)


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


class RecordedSignals:
    """A record of SIGTERM and SIGINT while entered; a second SIGINT raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.name = ""
        """Name of the last signal; empty before the first."""
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> "RecordedSignals":
        if threading.current_thread() is threading.main_thread():
            self._handlers.enter_context(_handle_signals(self._record))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handlers.close()
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


def _is_recorded(number: int) -> bool:
    """Return whether `RecordedSignals` handle the signal, because there is something to save."""
    return isinstance(getattr(signal.getsignal(number), "__self__", None), RecordedSignals)


def _leave_pipe_of_parent() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


# A signal that a forked process gets is no reason to end its parent.
os.register_at_fork(after_in_child=_leave_pipe_of_parent)
