"""Align a table for a terminal."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[+-]?[\d.,]+( ?%)?( \(.*\))?|")


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a header, a rule and rows in columns; columns of numbers are aligned at the right."""
    table = [header, *rows]
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
