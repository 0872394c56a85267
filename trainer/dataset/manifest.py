"""The manifest layout: a CSV file `path,label[,patient][,study][,split]`, and any further columns to slice by."""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from trainer import manifest_columns, storage
from trainer.dataset.example import DERIVED_ATTRIBUTES, LABEL_WORDS, SPLIT_WORDS, Example
from trainer.errors import DataError

_SEPARATORS = ",;\t"
# A table program writes numbers and truths in its own way.
_LABEL_WORDS = LABEL_WORDS | {"0.0": 0, "false": 0, "no": 0, "1.0": 1, "true": 1, "yes": 1}

_T = TypeVar("_T")
_Row = dict[str, str]


def read(source: str, root: str) -> Iterator[Example]:
    """The rows of the CSV file `source`, whose relative paths start at the folder `root`.

    Without a patient, a study counts as one; without a study, each image is its own.

    Raises:
      DataError: names the line and what is wrong with it.
    """
    roles, rows = _parse(source)
    lines: dict[str, int] = {}
    for line, row in rows:
        where = f"{source} line {line}"
        cells = {role: _cell(row, column, where) for role, column in roles.items()}
        path, uri = _resolve(root, cells["path"])
        if path in lines:
            raise DataError(
                f"{where}: {path} was listed in line {lines[path]} already; list each file once"
            )
        lines[path] = line
        study = (
            manifest_columns.study(cells.get("patient", ""), cells["study"])
            if "study" in cells
            else path
        )
        yield Example(
            path=path,
            uri=uri,
            label=_word(_LABEL_WORDS, cells["label"], "label", where),
            patient_id=cells.get("patient", study),
            study_id=study,
            split=_word(SPLIT_WORDS, cells["split"], "split", where) if "split" in cells else None,
            attributes={name: value for name, value in row.items() if name not in roles.values()},
        )
    if not lines:
        raise DataError(f"{source} lists no file; add one row per image below the header")


def _parse(source: str) -> tuple[dict[str, str], Iterator[tuple[int, _Row]]]:
    """The column that plays each role, and the rows with their line numbers."""
    content = storage.read_bytes(source)
    if content is None:
        raise DataError(
            f"{source} is no file; the manifest layout expects a CSV file with the columns path,label"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not text in UTF-8 ({error.reason}); save the manifest as CSV in UTF-8"
        ) from error
    # Table programs of many countries write semicolons.
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = [manifest_columns.plain(name) for name in next(reader, [])]
    roles = manifest_columns.roles(header)
    if not {"path", "label"} <= roles.keys():
        found = ",".join(header)[:200] or "an empty file"
        missing = " and ".join(sorted({"path", "label"} - roles.keys(), reverse=True))
        raise DataError(
            f"{source} has no column {missing}: expected a header with the columns path,label[,patient][,study][,split], found {found}"
        )
    if len(set(header)) < len(header) or "" in header:
        raise DataError(
            f"{source}: every column needs a name of its own, found {','.join(header)[:200]}"
        )
    if clash := set(header) & set(DERIVED_ATTRIBUTES):
        raise DataError(
            f"{source}: the column {min(clash)} has a name that preparation gives out itself; rename it"
        )
    return roles, _rows(reader, header, source)


def _rows(reader: Any, header: list[str], source: str) -> Iterator[tuple[int, _Row]]:
    try:
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{source} line {reader.line_num}: expected {len(header)} cells as in the header, got {len(cells)}"
                )
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise DataError(f"{source} line {reader.line_num} is not CSV: {error}") from error


def _cell(row: Mapping[str, str], column: str, where: str) -> str:
    if not row[column]:
        raise DataError(
            f"{where}: the column {column} is blank; fill it in every row, or drop the column"
        )
    return row[column]


def _word(words: Mapping[str, _T], value: str, column: str, where: str) -> _T:
    if value.lower() not in words:
        raise DataError(f"{where}: {column} {value!r} is none of {', '.join(words)}")
    return words[value.lower()]


def _resolve(root: str, cell: str) -> tuple[str, str]:
    """The name in the data set, and the URI, of a file that is listed as `cell`."""
    if not storage.is_remote(cell):
        cell = posixpath.normpath(cell)
        if not cell.startswith("/"):
            return cell, posixpath.join(root, cell)
    return cell.removeprefix(root.rstrip("/") + "/"), cell
