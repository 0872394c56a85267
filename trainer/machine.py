"""Find out what this machine has and this process may use: memory, cores, devices, packages."""

import functools
import importlib.util
import math
import os
import pathlib
import platform

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def memory(cgroup: pathlib.Path = _CGROUP) -> int:
    """Return the memory of the machine in bytes, or the limit of the container if that is less.

    The kernel kills a container that uses more.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = (cgroup / "memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(allowed)) if allowed.isdigit() else machine


def cache_folder() -> pathlib.Path:
    """Return the folder where copies of remote artifacts and converted networks are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(base) / "humerus"


def _read_cpuinfo(cpuinfo: pathlib.Path = _CPUINFO) -> str:
    """Return what the kernel says of the processor; nothing where it says nothing."""
    try:
        return cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def has_bfloat16_products(cpuinfo: pathlib.Path = _CPUINFO) -> bool:
    """Return whether the processor multiplies bfloat16 numbers by itself (AVX512-BF16 or AMX)."""
    flags = _read_cpuinfo(cpuinfo).split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cores(cgroup: pathlib.Path = _CGROUP) -> int:
    """Return how many threads to use: one for each core that this process may keep busy.

    A container may have a limit on processor time that is less than the cores it may run on.
    """
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(usable, _read_cpu_limit(cgroup))))


def _read_cpu_limit(cgroup: pathlib.Path) -> float:
    """Return the limit of the container in processor seconds per second, infinite without one."""
    version_2 = cgroup / "cpu.max"
    version_1 = [cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
    files = [version_2] if version_2.exists() else version_1
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
    except OSError:
        return math.inf
    return int(quota) / int(period) if quota.isdigit() else math.inf


def advise_extra(extra: str) -> str:
    """Return how to install what an optional feature needs, for the end of a message."""
    return (
        f"install the extra `{extra}`, in the checkout:"
        f" uv pip install --constraint requirements.lock '.[{extra}]'"
    )


def has_packages(*names: str) -> bool:
    """Return whether optional packages are installed, by the names that Python imports."""
    return all(importlib.util.find_spec(name) for name in names)


def has_gpu() -> bool:
    """Return whether the machine has an NVIDIA GPU, by the device file of the first one."""
    return pathlib.Path("/dev/nvidia0").exists()


def processor() -> str:
    """Return the name of the processor as the system gives it."""
    lines = _read_cpuinfo().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@functools.cache
def has_int8_products() -> bool:
    """Return whether the processor multiplies bytes without overflow (VNNI, AMX, Arm dot product).

    Older processors run an int8 network more slowly, and products may saturate.
    """
    flags = _read_cpuinfo()
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))
