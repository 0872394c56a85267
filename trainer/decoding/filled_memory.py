"""Fill new memory with a pattern, so that pixels that a decoder leaves unwritten can be found.

libtiff goes on after damaged data, and the rest of the picture is whatever the memory held before:
parts of another picture, perhaps. Two decodings over different patterns differ there.
"""

import contextlib
import ctypes
import functools
from collections.abc import Iterator

_M_PERTURB = -6
PATTERNS = (0x55, 0xAA)
"""Two bytes that differ in every bit."""


@contextlib.contextmanager
def fill_new_memory(pattern: int) -> Iterator[None]:
    """Fill what is allocated during the block with a byte in [1, 255].

    The C library does it (`mallopt`, M_PERTURB); another than glibc ignores it.
    """
    mallopt = _find_mallopt()
    if not mallopt:
        yield
        return
    mallopt(_M_PERTURB, pattern)
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


@functools.cache
def _find_mallopt():  # type: ignore[no-untyped-def]
    library = ctypes.CDLL(None)
    return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
