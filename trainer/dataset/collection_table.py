"""Read the table of a published collection: a CSV file `dataset.csv` with a row for each image."""

import posixpath
from collections.abc import Iterator, Sequence

from trainer.dataset import manifest
from trainer.errors import DataError

TABLE = "dataset.csv"
_FALSE, _TRUE = frozenset(("", "0", "0.0", "false")), frozenset(("1", "1.0", "true"))

Row = dict[str, str]


def read(root: str, paths: Sequence[str], columns: Sequence[str], name: str) -> Iterator[Row]:
    """Yield each row of the table as a mapping from column to cell.

    Args:
      root: folder of the collection.
      paths: its files, relative to it.
      columns: those that the table must have.
      name: of the collection, for messages.

    Raises:
      DataError: there is no such table in `root`, or it is not that of the collection.
    """
    if TABLE not in paths:
        below = sorted(path for path in paths if posixpath.basename(path) == TABLE)
        advice = (
            f"name {posixpath.join(root, posixpath.dirname(below[0]))} as the source"
            if below
            else "name the folder in which the collection was unpacked"
        )
        raise DataError(f"{root} holds no {TABLE} of {name}; {advice}")
    table = posixpath.join(root, TABLE)
    rows = manifest.read_rows(table)
    _, header = next(rows, (0, []))
    header = [cell.lower() for cell in header]
    missing = [column for column in columns if column not in header]
    if missing or len(set(header)) < len(header):
        raise DataError(
            f"{table} has no column {missing[0] if missing else 'of its own name'}: expected that "
            f"of {name}, found {','.join(header)[:200] or 'an empty file'}"
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{table} line {line}: expected {len(header)} cells as in the header, "
                f"got {len(cells)}"
            )
        yield dict(zip(header, cells, strict=True))


def read_flag(row: Row, column: str, root: str) -> bool:
    """Return a truth value of a row, where blank is false.

    Raises:
      DataError: it is none.
    """
    value = row[column].lower()
    if value not in _FALSE | _TRUE:
        raise DataError(
            f"{posixpath.join(root, TABLE)}: {column} is {row[column]!r}; expected 0 or 1"
        )
    return value in _TRUE
