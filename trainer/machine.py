"""What this process may use of its machine."""

import math
import os
import pathlib

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def memory(cgroup: pathlib.Path = _CGROUP) -> int:
    """Bytes: the machine's, or less in a container that may have less; beyond that the kernel kills it."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = (cgroup / "memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(allowed)) if allowed.isdigit() else machine


def cores(cgroup: pathlib.Path = _CGROUP) -> int:
    """Cores worth a thread each: those that this process may run on, or less in a container that may have less of their time."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(usable, _share_of_time(cgroup))))


def _share_of_time(cgroup: pathlib.Path) -> float:
    """Processor seconds per second that the container may have; infinite where nothing limits it."""
    v2, v1 = (
        cgroup / "cpu.max",
        [cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")],
    )
    try:
        quota, period = (
            v2.read_text() if v2.exists() else " ".join(file.read_text() for file in v1)
        ).split()
    except OSError:
        return math.inf
    return int(quota) / int(period) if quota.isdigit() else math.inf
