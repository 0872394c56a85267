"""Exchange messages with a worker: lines of JSON over a socket, arrays in shared memory.

Nothing is unpickled: a worker that a hostile file has taken over can send wrong numbers, but no
code.
"""

import json
import math
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

ARENA_BYTES = 1 << 30
"""Address space for one request and its reply. Memory is taken only where something is written."""
_HEAD_BYTES = 64
_KEPT_BYTES = 1 << 24
_ALIGNMENT = 64
_LONGEST_LINE = 1 << 20
_DTYPES = ("|u1", "<f4")
"""uint8 and float32, in the protocol of NumPy's arrays."""


class ClosedError(ConnectionError):
    """The other side is gone, or what it sent is not a message."""


def make_arena() -> int:
    """Return the descriptor of `ARENA_BYTES` of memory that has no name and ends with its last
    user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("humerus-worker", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, ARENA_BYTES)
    return descriptor


class Channel:
    """Sends and receives on one side of a conversation; both sides take turns.

    A reply is written after the request in the arena, so that the request stays readable.
    """

    def __init__(self, connection: socket.socket, arena: int):
        """Take a connected socket, and the descriptor of the arena."""
        self._connection = connection
        self._arena = mmap.mmap(arena, ARENA_BYTES)
        self._received = b""

    @property
    def accepted(self) -> bool:
        """Return whether the worker has begun its task; the shared memory keeps this if it dies."""
        return self._arena[0] == 1

    @accepted.setter
    def accepted(self, begun: bool) -> None:
        self._arena[0] = int(begun)

    def send(
        self, fields: Mapping[str, Any], arrays: Sequence[np.ndarray], start: int = _HEAD_BYTES
    ) -> int:
        """Send JSON-able fields, and arrays of uint8 or float32 from `start` on; return where they
        end.

        Raises:
          MemoryError: the arrays do not fit.
          ClosedError: the other side is gone.
        """
        places, end = [], start
        for array in arrays:
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = begin + array.nbytes
            if end > ARENA_BYTES:
                raise MemoryError(f"arrays of more than {ARENA_BYTES} bytes")
            there = np.frombuffer(self._arena, array.dtype, array.size, begin)
            there.reshape(array.shape)[...] = array
            places.append([begin, array.dtype.str, list(array.shape)])
        line = json.dumps([fields, places, end]).encode("ascii") + b"\n"
        try:
            self._connection.sendall(line)
        except TimeoutError:
            raise
        except OSError as error:
            raise ClosedError(str(error)) from error
        return end

    def receive(
        self, keep_waiting: Callable[[], object] | None = None
    ) -> tuple[dict[str, Any], list[np.ndarray], int]:
        """Wait for a message; return its fields, its arrays (views of the arena, valid until the
        next turn) and where they end.

        Args:
          keep_waiting: called whenever the time-out of the socket has passed; what it raises ends
            the wait.

        Raises:
          ClosedError: the other side is gone, or sent what is not a message.
        """
        while not self._received.endswith(b"\n"):
            try:
                part = self._connection.recv(1 << 16)
            except TimeoutError:
                if keep_waiting:
                    keep_waiting()
                continue
            except OSError as error:
                raise ClosedError(str(error)) from error
            self._received += part
            if not part or len(self._received) > _LONGEST_LINE:
                raise ClosedError("the connection was closed")
        line, self._received = self._received, b""
        try:
            fields, places, end = json.loads(line)
            return dict(fields), [self._view(*place) for place in places], int(end)
        except Exception as error:
            # A worker that was taken over may send anything: too large numbers, wrong types.
            raise ClosedError("the message is damaged") from error

    def _view(self, begin: int, dtype: str, shape: Sequence[int]) -> np.ndarray:
        if dtype not in _DTYPES:
            raise ValueError(f"expected an array of {', '.join(_DTYPES)}, got {dtype}")
        count = math.prod(shape)
        if begin < 0 or count < 0 or any(side < 0 for side in shape):
            raise ValueError("expected no negative numbers")
        return np.frombuffer(self._arena, dtype, count, begin).reshape(shape)

    def release(self, end: int) -> None:
        """Give the memory of a large message back to the system; nobody may look at its arrays any
        more."""
        if end > _KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            begin = _KEPT_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
            self._arena.madvise(mmap.MADV_REMOVE, begin, ARENA_BYTES - begin)

    def close(self) -> None:
        """Close the connection. The arena is freed with the last view of it."""
        self._connection.close()
