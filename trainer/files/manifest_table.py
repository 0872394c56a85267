"""Read the rows of a CSV file of images: one reader for preparation and scoring.

The file is a manifest with a header, or one of MURA's own lists, which have none.
"""

import csv
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trainer.errors import DataError
from trainer.files import manifest_columns, manifest_text, mura_paths

_DELIMITERS = ",;\t"
_NAMED_DELIMITER = re.compile('"?sep=([,;\t])"?')
_BLANK = f'{_DELIMITERS} "\r\n'


@dataclasses.dataclass(frozen=True)
class Row:
    """Holds the cells of a row as they are written.

    Attributes:
      line: number of the line that the row ends in.
      where: file and line, for messages.
    """

    line: int
    where: str
    cells: list[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Holds the header of a manifest, and reads its rows one by one.

    Attributes:
      header: the names of the columns as they are written; empty for a list of MURA.
      roles: the index of the column of each role of `manifest_columns.NAMES` that the header has.
      rows: the rows below the header, each with as many cells; all rows of a list of MURA.
      is_mura: whether it is one of MURA's own lists.
    """

    header: Sequence[str]
    roles: dict[str, int]
    rows: Iterator[Row]
    is_mura: bool = False


def read_table(
    lines: Iterable[str], source: str, required: Sequence[str], fill_short_rows: bool = False
) -> Table:
    """Read the header of a manifest.

    Args:
      lines: its lines, as `manifest_text.open_text` returns them.
      source: the file, for messages.
      required: roles of the columns that the header must have.
      fill_short_rows: whether missing cells at the end of a row are empty, and further cells that
        are blank are ignored; otherwise each row needs as many cells as the header.

    Raises:
      DataError: the header is wrong; the iterator of the rows raises it for a wrong row.
    """
    rows = read_rows(lines, source)
    first = next(rows, Row(0, source, []))
    if first.cells and mura_paths.is_listed(first.cells[0].strip()):
        return Table([], {}, itertools.chain([first], rows), is_mura=True)
    names = [manifest_columns.normalise_name(name) for name in first.cells]
    roles = manifest_columns.find_roles(names)
    if missing := [role for role in required if role not in roles]:
        others = "".join(f"[,{role}]" for role in manifest_columns.NAMES if role not in required)
        raise DataError(
            f"{source} has no column {' and '.join(missing)}: expected a header with the columns "
            f"{','.join(required)}{others}, found {','.join(names)[:200] or 'an empty file'}; path "
            f"may also be called {', '.join(manifest_columns.NAMES['path'][1:])}"
        )
    for number, name in enumerate(names, 1):
        if not name or name != name.encode("utf-8", "replace").decode():
            raise DataError(
                f"{source}: column {number} has no name in the header; name it in UTF-8 or remove "
                "it (pandas writes none with to_csv(index=False))"
            )
    check_different(names, source)
    return Table(
        first.cells,
        {role: names.index(name) for role, name in roles.items()},
        check_widths(rows, len(names), fill_short_rows),
    )


def read_rows(lines: Iterable[str], source: str) -> Iterator[Row]:
    """Yield the rows of a CSV file that are not blank, the header first.

    Raises:
      DataError: the file is not text, or a row is not CSV.
    """
    begin = 1
    try:
        reader = _open_csv(lines, source)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(reader.line_num, f"{source} line {reader.line_num}", cells)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source} line {begin} is not CSV: {error}; correct the row, such as a quotation mark "
            "that is not closed"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not text in UTF-8 or UTF-16 ({error.reason}); save it as CSV in UTF-8"
        ) from error


def check_widths(rows: Iterable[Row], width: int, fill_short_rows: bool = False) -> Iterator[Row]:
    """Yield the rows, each with `width` cells; see `read_table`."""
    for row in rows:
        surplus = "".join(row.cells[width:]).strip()
        if surplus or (len(row.cells) != width and not fill_short_rows):
            raise DataError(
                f"{row.where}: expected {width} cells as in the header, got {len(row.cells)}; "
                "correct the row, with quotation marks around a cell that contains a delimiter"
            )
        cells = row.cells[:width] + [""] * (width - len(row.cells))
        yield dataclasses.replace(row, cells=cells)


def check_different(names: Sequence[str], source: str) -> None:
    """Raise `DataError` if two columns have one name, in whatever case."""
    if len({name.casefold() for name in names}) < len(names):
        raise DataError(
            f"{source}: the columns need different names, found {','.join(names)[:200]}"
        )


def check_new(lines: dict[str, int], file: str, row: Row, name: str) -> None:
    """Raise `DataError` if an earlier row names the file.

    Args:
      lines: the line of each file so far; the file is added.
      file: identifies the file.
      name: its name for the message.
    """
    if lines.setdefault(file, row.line) != row.line:
        raise DataError(
            f"{row.where}: {name} was listed in line {lines[file]} already; list each file once"
        )


def resolve_in_mura(cell: str, root: str, has_mura: bool, where: str) -> str:
    """Return the path or URI of an image or study in one of MURA's lists.

    The paths in it begin with `MURA-v1.1`, and the lists lie in this folder, which may have another
    name. So this beginning is removed, unless there is such a folder beside the list.

    Args:
      cell: the path as it is written.
      root: folder of the list.
      has_mura: whether `root` holds the folder `MURA-v1.1`.
      where: list and line, for messages.

    Raises:
      DataError: as `manifest_text.resolve_path`.
    """
    listed = cell if has_mura else cell.removeprefix(f"{mura_paths.ROOT}/")
    return manifest_text.resolve_path(listed, root, where)


def _open_csv(lines: Iterable[str], source: str) -> Any:
    """Return a strict `csv.reader` of a table whose header may be preceded by blank lines.

    It is strict: otherwise a quotation mark that is not closed would swallow the rows behind it.
    The header determines the delimiter, unless a line `sep=;`, which Excel understands, does. The
    lines before the header are read as blank rows, so that the reader's line numbers are those of
    the file.
    """
    lines, skipped, delimiter, header = iter(lines), 0, "", ""
    for line in lines:
        if named := _NAMED_DELIMITER.fullmatch(line.strip()):
            delimiter = named[1]
        elif line.strip(_BLANK):
            header = line
            break
        skipped += 1
    if "\0" in header:
        raise DataError(
            f"{source} is not text in UTF-8, nor in UTF-16 with a byte order mark (it holds NUL"
            " bytes); save it as CSV in UTF-8"
        )
    rows = itertools.chain(itertools.repeat("\n", skipped), [header], lines)
    return csv.reader(rows, delimiter=delimiter or _detect_delimiter(header), strict=True)


def _detect_delimiter(header: str) -> str:
    """Return the delimiter of a CSV file: comma, semicolon or tab.

    It is the one that makes a column of paths, else the most frequent one. Spreadsheet programs of
    many countries write semicolons.
    """
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a cell beyond any length, which `read_rows` refuses
            continue
        if "path" in manifest_columns.find_roles(set(map(manifest_columns.normalise_name, names))):
            return delimiter
    return max(_DELIMITERS, key=header.count)
