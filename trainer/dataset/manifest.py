"""Read the manifest layout: a CSV file `path,label[,patient][,study][,split]`, or a list of MURA.

Further columns become attributes, by which an evaluation can be sliced. MURA's own lists
(`train_image_paths.csv`, `valid_labeled_studies.csv`) have no header. A row is an image or a study,
with or without a label.
"""

import csv
import io
import itertools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from trainer import storage
from trainer.dataset import mura
from trainer.dataset.example import DERIVED_ATTRIBUTES, Example
from trainer.errors import DataError
from trainer.files import (
    folder_walk,
    manifest_columns,
    manifest_text,
    mura_paths,
    regular_file,
    study_folders,
    urls,
)
from trainer.files.study_folders import LABEL_WORDS, SPLIT_WORDS

# Spreadsheet programs write numbers and truth values in ways of their own.
_LABEL_WORDS = LABEL_WORDS | {"0.0": 0, "false": 0, "no": 0, "1.0": 1, "true": 1, "yes": 1}

_MAX_BYTES = 1 << 30
"""Largest manifest that is read: millions of images."""

_T = TypeVar("_T")
_NumberedRows = Iterator[tuple[int, list[str]]]


def read(source: str, root: str) -> Iterator[Example]:
    """Yield the images that the CSV file `source` lists; relative paths start at `root`.

    Without a column for them, a study is what `study_folders.find_study` finds in a list, and a
    patient what `study_folders.find_patient` finds, else the study.

    Raises:
      DataError: the manifest is wrong; the message names the line.
    """
    rows = read_rows(source)
    _, first = next(rows, (0, []))
    if first and mura_paths.is_listed(first[0]):
        examples = _read_mura_list(source, root, itertools.chain([(1, first)], rows))
    else:
        examples = _read_table(source, root, first, rows)
    lines: dict[str, int] = {}
    for line, example in examples:
        file = urls.absolute(example.uri)
        if file in lines:
            raise DataError(
                f"{source} line {line}: {example.path} was listed in line {lines[file]} already; "
                "list each file once"
            )
        lines[file] = line
        yield example
    if not lines:
        raise DataError(f"{source} lists no file; add one row per image below the header")


def read_rows(source: str) -> _NumberedRows:
    """Yield the rows of a CSV file that are not blank, with line numbers; the header first."""
    content = _read_content(source)
    if content is None:
        raise DataError(
            f"{source} is not a file; the manifest layout expects a CSV file with the columns "
            "path,label"
        )
    try:
        text = content.decode(manifest_text.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not text in UTF-8 or UTF-16 ({error.reason}); save the manifest as CSV "
            "in UTF-8"
        ) from error
    if "\0" in text.partition("\n")[0]:
        raise DataError(
            f"{source} is not text in UTF-8, nor in UTF-16 with a byte order mark (it holds NUL"
            " bytes); save the manifest as CSV in UTF-8"
        )
    return _number_rows(manifest_text.read_csv(io.StringIO(text, newline="")), source)


def _read_content(source: str) -> bytes | None:
    """Return the bytes of a manifest; None where there is no such file."""
    if urls.is_remote(source):
        return storage.read_bytes(source)
    try:
        return regular_file.read(source, _MAX_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except (regular_file.NotRegularError, regular_file.TooLargeError) as error:
        raise DataError(
            f"{source} is not a file that can be read as a manifest ({error}); name a CSV file with"
            " the columns path,label"
        ) from error


def _number_rows(reader: Any, source: str) -> _NumberedRows:
    try:
        for cells in reader:
            if not manifest_text.is_blank(cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{source} line {reader.line_num} is not CSV: {error}") from error


def _read_table(
    source: str, root: str, first: Sequence[str], rows: _NumberedRows
) -> Iterator[tuple[int, Example]]:
    """Yield the examples of a table with a header, with their line numbers."""
    header = [manifest_columns.normalise_name(name) for name in first]
    roles = _find_roles(source, header)
    for line, cells in rows:
        where = f"{source} line {line}"
        if len(cells) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} cells as in the header, got {len(cells)}"
            )
        row = dict(zip(header, cells, strict=True))
        given = {role: _read_cell(row, column, where) for role, column in roles.items()}
        path, uri = _resolve(root, given["path"], where)
        if "study" in given:
            study = manifest_columns.join_study(given.get("patient", ""), given["study"])
        else:
            study = study_folders.find_study(path, uri, is_grouped=False) or path
        patient = given.get("patient") or study_folders.find_patient(path, uri) or study
        split = (
            _read_word(SPLIT_WORDS, given["split"], "split", where) if "split" in given else None
        )
        yield (
            line,
            Example(
                path=path,
                uri=uri,
                label=_read_word(_LABEL_WORDS, given["label"], "label", where),
                patient_id=patient,
                study_id=study,
                split=split,
                attributes={
                    name: value for name, value in row.items() if name not in roles.values()
                },
            ),
        )


def _find_roles(source: str, header: Sequence[str]) -> dict[str, str]:
    """Return the name of the column for each role; see `manifest_columns.NAMES`."""
    roles = manifest_columns.find_roles(header)
    if not {"path", "label"} <= roles.keys():
        found = ",".join(header)[:200] or "an empty file"
        missing = " and ".join(sorted({"path", "label"} - roles.keys(), reverse=True))
        raise DataError(
            f"{source} has no column {missing}: expected a header with the columns "
            f"path,label[,patient][,study][,split], found {found}"
        )
    if "" in header:
        raise DataError(
            f"{source}: column {header.index('') + 1} has no name in the header; name it or remove "
            "it (pandas writes none with to_csv(index=False))"
        )
    if len(set(header)) < len(header):
        raise DataError(
            f"{source}: the columns need different names, found {','.join(header)[:200]}"
        )
    if clash := set(header) & set(DERIVED_ATTRIBUTES):
        raise DataError(
            f"{source}: the column {min(clash)} has a name that preparation uses itself; rename it"
        )
    return roles


def _read_mura_list(source: str, root: str, rows: _NumberedRows) -> Iterator[tuple[int, Example]]:
    """Yield the images of one of MURA's lists, with their line numbers.

    The paths in it begin with `MURA-v1.1`, and the lists lie in this folder, which may have another
    name. So this beginning is removed, unless the path exists as it stands.
    """
    is_relative_to_root = None
    for line, cells in rows:
        where = f"{source} line {line}"
        if len(cells) > 2 or not mura_paths.is_listed(cells[0]):
            raise DataError(
                f"{where}: expected a path of MURA, and a label at most, found "
                f"{','.join(cells)[:200]!r}"
            )
        label = _read_word(_LABEL_WORDS, cells[1], "label", where) if len(cells) > 1 else None
        if is_relative_to_root is None:
            is_relative_to_root = storage.exists(_resolve(root, cells[0], where)[1])
        listed = cells[0] if is_relative_to_root else cells[0].removeprefix(f"{mura_paths.ROOT}/")
        path, uri = _resolve(root, listed, where)
        if match := mura_paths.STUDY_PATH.search(path):
            names = sorted(name.rstrip("/") for name in storage.list_folder(uri))
            shown = [name for name in names if not folder_walk.is_hidden(name)]
            images = [(posixpath.join(path, name), posixpath.join(uri, name)) for name in shown]
            # A study without files stands for itself and becomes a rejection.
            for image in images or [(path, uri)]:
                yield line, mura.make_example(*image, match, label)
        elif match := mura_paths.IMAGE_PATH.search(path):
            yield line, mura.make_example(path, uri, match, label)


def _read_cell(row: Mapping[str, str], column: str, where: str) -> str:
    if not row[column]:
        raise DataError(
            f"{where}: the column {column} is blank; fill it in every row, or drop the column"
        )
    return row[column]


def _read_word(words: Mapping[str, _T], value: str, column: str, where: str) -> _T:
    if value.lower() not in words:
        raise DataError(f"{where}: {column} {value!r} is none of {', '.join(words)}")
    return words[value.lower()]


def _resolve(root: str, cell: str, where: str) -> tuple[str, str]:
    """Return the name in the data set and the URI of a file that is listed as `cell`."""
    uri = manifest_text.resolve_path(cell, root, where)
    return (uri.removeprefix(root.rstrip("/") + "/") if root else uri), uri
