"""Check the directories of a TIFF file before Pillow reads them.

Pillow loads every tag of a directory, whatever the picture needs. Tags may share their bytes, so
that a small file makes it load gigabytes.
"""

import struct
from collections.abc import Iterator

from trainer.decoding.refusal import check_memory, refuse

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
"""Bytes of each type of value (TIFF 6.0, section 2, and BigTIFF)."""
_NESTED = (330, 34665, 34853, 40965)
"""Tags whose value is the place of another directory, which Pillow loads too."""
_MOST_TAGS = 200_000
_COPIES = 2  # the bytes of a tag and its values


def check_directories(data: bytes) -> None:
    """Refuse a TIFF file whose tags take more than the memory limit, or that Pillow mistakes.

    Directories beyond the end of the file are left to Pillow.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    if is_big and order == ">":
        refuse(
            "unsupported",
            "expected TIFF or little-endian BigTIFF, the file is BigTIFF in big-endian order",
        )
    try:
        first = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, 8 if is_big else 4)
        waiting, seen, needed, tags = list(first), set(), 0, 0
        while waiting:
            place = waiting.pop()
            if place in seen or not place:
                continue
            seen.add(place)
            for tag, size, value in _read_entries(data, place, order, is_big):
                tags += 1
                needed += min(size, len(data)) * _COPIES
                check_memory(needed)
                if tags > _MOST_TAGS:
                    refuse("unsupported", f"expected at most {_MOST_TAGS:,} tags in the TIFF file")
                if tag in _NESTED:
                    waiting.append(value)
            waiting.append(_read_next(data, place, order, is_big))
    except struct.error:
        return


def _read_entries(
    data: bytes, place: int, order: str, is_big: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield the tag, the size in bytes and the value or its place of each entry of a directory."""
    head, entry = (f"{order}Q", f"{order}HHQQ") if is_big else (f"{order}H", f"{order}HHII")
    (count,) = struct.unpack_from(head, data, place)
    for index in range(count):
        at = place + struct.calcsize(head) + index * struct.calcsize(entry)
        tag, kind, number, value = struct.unpack_from(entry, data, at)
        yield tag, number * _SIZES.get(kind, 0), value


def _read_next(data: bytes, place: int, order: str, is_big: bool) -> int:
    """Return the place of the directory behind another; 0 if there is none."""
    head, entry = (f"{order}Q", 20) if is_big else (f"{order}H", 12)
    (count,) = struct.unpack_from(head, data, place)
    at = place + struct.calcsize(head) + count * entry
    return int(struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, at)[0])
