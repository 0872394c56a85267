"""Define tasks for worker processes that exhaust, crash or hang, as codecs do on hostile files."""

import ctypes
import os
import pathlib
import signal
import sys
import time

import numpy as np

from trainer.workers.imaging_tasks import decode_task, draw_task


def double(arrays, **arguments):
    """Return twice each array, and what else was given."""
    return arguments, [2 * array for array in arrays]


def modules(arrays):
    """Return the names of the modules that this process has imported after its imaging."""
    return {"modules": sorted(sys.modules)}, []


def pid(arrays):
    """Return the number of this process."""
    return {"pid": os.getpid()}, []


def refuse_odd(arrays, number):
    """Return twice an array, or a refusal of an odd number; quote how many arrays there are."""
    if number % 2:
        return {"refusal": ["odd", str(len(arrays))]}, []
    return {"number": number}, [2 * array for array in arrays]


def crash(arrays, **arguments):
    """Read address 0."""
    ctypes.string_at(0)


def crash_on_bytes(arrays, path, **arguments):
    """Decode as the real task does, but crash, loop or exhaust where the file says so."""
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(5)
    if start == b"crash":
        ctypes.string_at(0)
    if start == b"kill!":
        kill_self(arrays)
    if start == b"loop!":
        loop(arrays)
    if start == b"alot!":
        exhaust(arrays)
    return decode_task(arrays, path, **arguments)


def draw_only(arrays, path, **arguments):
    """Draw as the real task does, but leave writing to the parent."""
    return draw_task(arrays, None, **arguments)


def loop(arrays):
    """Use the processor without end."""
    while True:
        pass


def sleep(arrays, seconds=3600):
    """Wait without using the processor."""
    time.sleep(seconds)
    return {}, []


def exhaust(arrays):
    """Take memory without end."""
    taken = []
    while True:
        taken.append(np.ones(1 << 24, np.uint8))


def kill_self(arrays):
    """End as if the kernel had run out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(arrays):
    """Raise an error whose text quotes the file."""
    raise ValueError("JOHN^DOE")


def panic(arrays):
    """Raise what is no Exception, as the panics of Rust."""

    class PanicException(BaseException):
        pass

    raise PanicException("JOHN^DOE")


def babble(arrays, message="[{}, [[0, 'object', [1]]], 0]"):
    """Write what is no message to the parent, as a worker that was taken over might."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, message.encode() + b"\n")
        except OSError:
            continue
    time.sleep(60)


def overlap(arrays, folder):
    """Return how many tasks are in this function at the moment, this one included."""
    mark = pathlib.Path(folder) / str(os.getpid())
    mark.touch()
    time.sleep(0.02)
    running = len(list(pathlib.Path(folder).iterdir()))
    mark.unlink()
    return {"running": running}, []


def loop_for_ever(arrays, path, **arguments):
    """Say in a file beside the picture that it is being decoded, and use the processor."""
    pathlib.Path(path).with_name("decoding").touch()
    loop(arrays)


def count(arrays, to, crash_at=None):
    """Yield numbers one by one."""
    for number in range(to):
        if number == crash_at:
            ctypes.string_at(0)
        yield {"number": number}, [np.full(3, number, np.uint8)]
