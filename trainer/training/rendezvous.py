"""Wait for the other hosts of a run first, because TensorFlow ignores signals while it waits.

TensorFlow also keeps other threads from touching the heartbeat file. So the first host listens on
its own port until every other has asked it whether all are there, and only then do they start
TensorFlow. If a restarted host finds TensorFlow at the other end, it starts TensorFlow too.
"""

import contextlib
import errno
import math
import os
import socket
import time
from collections.abc import Sequence

from absl import logging

from trainer.program import telemetry

POLL_SECONDS = 1.0
ABSENT_SECONDS = 10.0
"""A host that has not asked for this long counts as absent."""
_LOG_SECONDS = 60
_TIMEOUT_SECONDS = 5.0
_STRANGER_SECONDS = 1.0
"""How long the first host waits for one that connects and says nothing."""
_GREETING, _WAIT, _GO = b"humerus\n", b"wait", b"go"
_TENSORFLOW = b"PRI "
"""The first bytes of an HTTP/2 client, such as TensorFlow's."""


def meet(hosts: Sequence[str], rank: int) -> None:
    """Wait until all hosts of a run are there.

    Args:
      hosts: `host:port` of each; the first one listens.
      rank: which of them this is, from 0.

    Raises:
      OSError: the port of this host is in use.
    """
    with telemetry.keep_alive():
        with _listen(hosts[rank]) as server:
            if rank == 0:
                _answer(server, hosts)
                return
        while ask(hosts[0], rank) in (b"", _WAIT):
            logging.log_every_n_seconds(
                logging.INFO, "Waiting until %s has found all hosts.", _LOG_SECONDS, hosts[0]
            )
            time.sleep(POLL_SECONDS)


def _listen(own: str) -> socket.socket:
    """Open the port of this host on all its addresses, as TensorFlow does."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    try:
        return socket.create_server(
            ("", split_address(own)[1]), family=family, backlog=128, dualstack_ipv6=is_dual
        )
    except OSError as error:
        end = "end the process that uses it, or " if error.errno == errno.EADDRINUSE else ""
        raise OSError(
            f"this host can't open its port in {own} ({os.strerror(error.errno or 0)});"
            f" {end}name another port on all hosts"
        ) from error


def _answer(server: socket.socket, hosts: Sequence[str]) -> None:
    """Answer the other hosts until each of them knows that all are there."""
    server.settimeout(POLL_SECONDS)
    ranks = {str(rank).encode(): rank for rank in range(1, len(hosts))}
    last_asked = dict.fromkeys(ranks.values(), -math.inf)
    uninformed = set(ranks.values())
    are_all_there = False
    while uninformed:
        earliest = time.monotonic() - ABSENT_SECONDS
        missing = [hosts[rank] for rank, asked in last_asked.items() if asked < earliest]
        are_all_there = are_all_there or not missing
        if missing:
            names = ", ".join(missing)
            logging.log_every_n_seconds(logging.INFO, "Waiting for %s.", _LOG_SECONDS, names)
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            connection.settimeout(_STRANGER_SECONDS)
            connection.sendall(_GREETING)
            said = connection.recv(1024)
            if said.startswith(_TENSORFLOW):
                return
            if said in ranks:
                last_asked[ranks[said]] = time.monotonic()
                connection.sendall(_GO if are_all_there else _WAIT)
                if are_all_there:
                    uninformed.discard(ranks[said])


def ask(first: str, rank: int) -> bytes:
    """Ask the first host whether all hosts are there, and return its answer.

    Returns:
      `wait`, `go`, or TensorFlow's first bytes; nothing if no one answers.
    """
    try:
        with socket.create_connection(split_address(first), _TIMEOUT_SECONDS) as connection:
            greeting = _receive(connection, len(_GREETING))
            if greeting != _GREETING:
                return b"" if _GREETING.startswith(greeting) else greeting
            connection.sendall(str(rank).encode())
            answer = _receive(connection, len(_WAIT))
            return answer if answer in (_GO, _WAIT) else b""
    except OSError:
        return b""


def _receive(connection: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes; fewer where the other end closes the connection."""
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


def split_address(host: str) -> tuple[str, int]:
    """Return name and port of `host:port`."""
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)
