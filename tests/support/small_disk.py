"""Mount a disk of a few hundred KiB that tests can fill."""

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def mounted(folder: pathlib.Path, kibibytes: int) -> Iterator[pathlib.Path]:
    """Where this user may mount one; else the test is skipped."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", folder]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here: " + done.stderr.decode().strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: pathlib.Path, kibibytes: int) -> pathlib.Path:
    """Fill the disk by a number of bytes; return the file that fills it."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * (kibibytes * 1024))
    return filler
