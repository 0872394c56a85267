"""Two pods that reach each other: each in a network namespace of its own where this machine allows it, else on ports of the loopback."""

import contextlib
import dataclasses
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Network:
    """Attributes:
    addresses: `name:port` of a pod -> where it is here.
    prefixes: what goes before a command of each pod, to run it in its network.
    """

    addresses: Mapping[str, str]
    prefixes: Sequence[Sequence[str]]


def free_port() -> int:
    """A TCP port that nobody holds just now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def of_two(*names: str) -> Iterator[Network]:
    """A network of two pods, by their `name:port`."""
    spaces = [f"humerus-{os.getpid()}-{i}" for i in range(2)]
    try:
        _connect(*spaces)
    except (OSError, subprocess.CalledProcessError):
        yield Network({name: f"localhost:{free_port()}" for name in names}, [[], []])
    else:
        there = {name: f"10.77.0.{i}:{name.rpartition(':')[2]}" for i, name in enumerate(names, 1)}
        yield Network(there, [["ip", "netns", "exec", space] for space in spaces])
    finally:
        with contextlib.suppress(OSError):
            for space in spaces:
                subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


def _connect(one: str, other: str) -> None:
    """Two namespaces with a cable between them."""
    steps = [f"netns add {one}", f"netns add {other}", f"link add eth0 netns {one} type veth peer name eth0 netns {other}"]
    for i, space in enumerate((one, other), 1):
        steps += [
            f"-n {space} address add 10.77.0.{i}/24 dev eth0",
            f"-n {space} link set eth0 up",
            f"-n {space} link set lo up",
        ]
    for step in steps:
        subprocess.run(["ip", *step.split()], capture_output=True, check=True)
