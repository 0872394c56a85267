"""What this process may use of its machine."""

import os
import pathlib

_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")


def memory(limit: pathlib.Path = _LIMIT) -> int:
    """Bytes: the machine's, or less in a container that may have less; beyond that the kernel kills it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = limit.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(allowed)) if allowed.isdigit() else machine
