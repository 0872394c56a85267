"""Read the table of a published collection: a CSV file `dataset.csv` with a row for each image."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence

from trainer.dataset import manifest
from trainer.errors import DataError
from trainer.files import manifest_table

TABLE = "dataset.csv"
_FALSE, _TRUE = frozenset(("", "0", "0.0", "false")), frozenset(("1", "1.0", "true"))


class Row(dict[str, str]):
    """A row by column.

    Attributes:
      where: the table and the line, for messages.
    """

    where = ""


def read(
    root: str, paths: Sequence[str], names: Sequence[str], columns: Sequence[str], name: str
) -> Iterator[Row]:
    """Yield each row of the table as a mapping from column to cell.

    Args:
      root: folder of the collection.
      paths: its files, relative to it.
      names: columns that name something in each row; the first is that of the file.
      columns: further columns that the table must have.
      name: of the collection, for messages.

    Raises:
      DataError: there is no such table in `root`, it is not that of the collection, or a row has
        no name, no proper file name, or the file of another row.
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
    rows = manifest_table.read_rows(manifest.open_text(table), table)
    first = next(rows, None)
    header = [cell.strip().lower() for cell in first.cells] if first else []
    if missing := [column for column in (*names, *columns) if column not in header]:
        raise DataError(
            f"{table} has no column {missing[0]}: expected that of {name}, found "
            f"{','.join(header)[:200] or 'an empty file'}"
        )
    manifest_table.check_different(header, table)
    lines: dict[str, int] = {}
    for listed in manifest_table.check_widths(rows, len(header)):
        row = Row(zip(header, (cell.strip() for cell in listed.cells), strict=True))
        row.where = listed.where
        if blank := [column for column in names if not row[column]]:
            raise DataError(f"{row.where}: the column {blank[0]} is blank; fill it in every row")
        file = row[names[0]]
        if "/" in file or "\\" in file or file in (".", ".."):
            raise DataError(f"{row.where}: {names[0]} is {file!r}; expected a name without folders")
        manifest_table.check_new(lines, file, listed, file)
        yield row


def index_files(
    root: str, named: Iterable[tuple[str, str]], name: str, expected: str
) -> dict[str, str]:
    """Return the path of each image by its name in the table.

    Args:
      root: folder of the collection.
      named: name and path of its images.
      name: of the collection, for messages.
      expected: which images it should hold and what to do, for messages.

    Raises:
      DataError: there is no image, or one twice.
    """
    images: dict[str, str] = {}
    for key, path in named:
        first = images.setdefault(key, path)
        if first != path:
            raise DataError(
                f"{first} and {path} in {root} are the same image of {name}; remove one of them"
            )
    if not images:
        raise DataError(f"{root} holds no {expected}")
    return images


def read_flag(row: Row, column: str) -> bool:
    """Return a truth value of a row, where blank is false.

    Raises:
      DataError: it is none.
    """
    value = row[column].lower()
    if value not in _FALSE | _TRUE:
        raise DataError(f"{row.where}: {column} is {row[column]!r}; expected 0 or 1")
    return value in _TRUE
