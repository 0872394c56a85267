"""Limit the address space and the processor time of this process, anew for each task."""

import functools
import math
import os
import resource
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")


def address_space() -> int:
    """Return how many bytes of address space this process has mapped; 0 where the system does not
    say."""
    statm = _open_statm()
    return 0 if statm is None else int(os.pread(statm, 64, 0).split()[0]) * _PAGE


@functools.cache
def _open_statm() -> int | None:
    """Open the kernel's account of this process's memory, which is read for each task."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def forbid_core_files() -> None:
    """Keep a crash from writing memory, which may show a patient's picture, to the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow(memory: int, seconds: float) -> None:
    """Allow this process `memory` bytes beyond what it has mapped, and `seconds` of processor time
    from now on.

    Beyond the first, allocations fail (MemoryError in Python). Beyond the second, the kernel ends
    the process with SIGXCPU.
    """
    _lower(resource.RLIMIT_AS, address_space() + memory)
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))


def _lower(kind: int, value: int) -> None:
    """Set the soft limit, which may be raised again, within the hard one that the process was
    started with."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
