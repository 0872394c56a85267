"""The program of a worker process: it runs one task after the other, each within its limits, until
its parent closes the socket.

It imports neither TensorFlow nor Beam. Tasks are named `module:function`.
"""

import contextlib
import importlib
import itertools
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType
from typing import Any

import numpy as np

from trainer.workers import limits
from trainer.workers.channel import Channel, ClosedError

Result = tuple[dict[str, Any], Sequence[np.ndarray]]
"""What a task returns, or yields several of: JSON-able fields, and arrays of uint8 or float32."""
Arguments = Mapping[str, Any] | Sequence[tuple[int, Mapping[str, Any]]]
"""Keyword arguments of a call; of several calls, the number of arrays and those of each."""
GROWTH = 1 << 28
"""Bytes of address space that a worker may gain over its tasks before it is replaced: some codecs
leak."""


def main(connection: int, arena: int, memory: int, seconds: float) -> None:
    """Serve the parent on the other side of descriptor `connection`.

    Args:
      connection: descriptor of a connected socket.
      arena: descriptor of the shared memory.
      memory: bytes that a task may allocate.
      seconds: processor time that a task, or one item of a task that yields several, may take.
    """
    # Ctrl-C in a terminal reaches every process; the parent decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits.forbid_core_files()
    parent = socket.socket(fileno=connection)
    # A library may have given the parent's sockets a default time-out, which travels along.
    parent.setblocking(True)
    channel = Channel(parent, arena)
    channel.send({"ready": True}, [])
    most = None
    while True:
        try:
            fields, arrays, end = channel.receive()
        except ClosedError:
            return
        channel.accepted = True
        try:
            task = load_task(fields["task"])  # which may import much, before limits hold
            limits.allow(memory, seconds)
            result = run_task(task, arrays, fields["arguments"])
            if isinstance(result, GeneratorType):
                for found, made in result:
                    channel.send({"item": found}, made, end)
                    channel.receive()
                    limits.allow(memory, seconds)
                channel.send({"over": True}, [])
                continue
            most = most or limits.address_space() + GROWTH
            reply = {"result": result[0], "should_replace": limits.address_space() > most}
            channel.send(reply, result[1], end)
        except ClosedError:
            return
        except BaseException as error:
            # Panics of codecs in Rust are a BaseException. The text might quote the file, so that
            # only the name is sent.
            kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
            del error
            channel.send({"failed": kind}, [])


def run_task(task: Callable[..., Any], arrays: Sequence[np.ndarray], arguments: Arguments) -> Any:
    """Call a task once, or several times with the arrays of all calls one behind the other.

    Returns:
      What the task returns. Of several calls, a `Result` whose `results` hold the number of arrays
      and the fields of each. None stands for a call that failed or whose fields hold a `refusal`:
      the calls share the limits of one task, which may be the reason.
    """
    if isinstance(arguments, Mapping):
        return task(arrays, **arguments)
    results: list[tuple[int, dict[str, Any]] | None] = []
    made: list[np.ndarray] = []
    rest = iter(arrays)
    for count, keywords in arguments:
        result = None
        with contextlib.suppress(Exception):
            fields, of_call = task(list(itertools.islice(rest, count)), **keywords)
            if not fields.get("refusal"):
                result = len(of_call), fields
                made += of_call
        results.append(result)
    return {"results": results}, made


def load_task(name: str) -> Callable[..., Any]:
    """Return the function of a task."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
