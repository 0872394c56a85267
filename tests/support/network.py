"""Simulate networks of pods on one machine, a namespace for each, with /etc/hosts of all pods."""

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Network:
    """Attributes:
    prefixes: what goes before a command of each pod, to run it in its network.
    names: lines of /etc/hosts, the same for all.
    """

    prefixes: Sequence[Sequence[str]]
    names: str


@contextlib.contextmanager
def of_two(*names: str) -> Iterator[Network]:
    """Return a network of two pods that know each other by these names."""
    spaces = [f"humerus-{os.getpid()}-{i}" for i in range(2)]
    try:
        _connect(*spaces)
        hosts = "".join(f"10.77.0.{i} {name}\n" for i, name in enumerate(names, 1))
        yield Network(
            [["ip", "netns", "exec", space] for space in spaces], "127.0.0.1 localhost\n" + hosts
        )
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


def _connect(one: str, other: str) -> None:
    """Two namespaces with a cable between them."""
    steps = [
        f"netns add {one}",
        f"netns add {other}",
        f"link add eth0 netns {one} type veth peer name eth0 netns {other}",
    ]
    for i, space in enumerate((one, other), 1):
        steps += [
            f"-n {space} address add 10.77.0.{i}/24 dev eth0",
            f"-n {space} link set eth0 up",
            f"-n {space} link set lo up",
        ]
    for step in steps:
        subprocess.run(["ip", *step.split()], capture_output=True, check=True)
