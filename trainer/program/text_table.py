"""Align a table for a terminal."""

import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence

WIDTH = 100
"""Most columns of a table, if the other cells leave a dozen for the last one's words."""
_NARROWEST = 12
_NUMBER = re.compile(r"[<+-]?[\d.,]+( ?%)?( \(.*\))?|undefined|")


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header, a rule and rows in columns; columns of numbers are aligned at the right.

    Words in the last column are wrapped where the table would be wider than `WIDTH`.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    widths[-1] = min(widths[-1], max(_NARROWEST, WIDTH - sum(width + 2 for width in widths[:-1])))
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for row in (header, rule, *rows)
        for line in _wrap(row, widths[-1])
    )


def _wrap(row: Sequence[str], width: int) -> Iterator[tuple[str, ...]]:
    """Return the lines of a row whose last cell is at most `width` columns wide, if words allow."""
    *cells, last = row
    wrapped = textwrap.wrap(last, width, break_long_words=False, break_on_hyphens=False) or [""]
    return itertools.zip_longest(*([cell] for cell in cells), wrapped, fillvalue="")
