"""Read the manifest layout: a CSV file `path,label[,patient][,study][,split]`, or a list of MURA.

Further columns become attributes, by which an evaluation can be sliced. MURA's own lists
(`train_image_paths.csv`, `valid_labeled_studies.csv`) have no header. A row is an image or a study,
with or without a label.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer import storage
from trainer.dataset import manifest_cells, mura, mura_list
from trainer.dataset.example import DERIVED_ATTRIBUTES, LABELS, Example
from trainer.dataset.listing import Listing, Omission
from trainer.errors import DataError
from trainer.files import (
    manifest_columns,
    manifest_text,
    mura_paths,
    regular_file,
    study_folders,
    urls,
)
from trainer.files.study_folders import SPLIT_WORDS

_MAX_BYTES = 1 << 30
"""Largest manifest that is read: millions of images."""

_NumberedRows = Iterator[tuple[int, list[str]]]


def list_source(source: str, root: str, body_parts: Sequence[str]) -> Listing:
    """Return the images that the CSV file `source` lists; relative paths start at `root`.

    Without a column for them, a study is what `study_folders.find_study` finds in a list, and a
    patient what `study_folders.find_patient` finds, else the study.

    Args:
      body_parts: names of the body parts to take from a list of MURA, or `all`; a table ignores it.

    Raises:
      ConfigError: a list of MURA lacks a body part.
      DataError: the manifest is wrong; the message names the line.
    """
    rows = read_rows(source)
    _, first = next(rows, (0, []))
    omissions: Sequence[Omission] = ()
    numbered: Iterator[tuple[int, Example]]
    is_of_mura = bool(first) and mura_paths.is_listed(first[0])
    if is_of_mura:
        listed = list(mura_list.read(source, root, itertools.chain([(1, first)], rows)))
        matches = {row.path: row.match for row in listed}
        taken, omissions = mura.select_body_parts(matches, body_parts, source)
        kept = set(taken)
        chosen = (row for row in listed if row.path in kept)
        numbered = itertools.chain.from_iterable(map(mura_list.list_images, chosen))
    else:
        numbered = _read_table(source, root, first, rows)
    examples = sorted(_check_repetition(source, numbered), key=lambda example: example.path)
    if not examples and not omissions:
        raise DataError(f"{source} lists no file; add one row per image below the header")
    return Listing(
        examples, omissions, body_parts if is_of_mura else (), _warn_of_labels(source, examples)
    )


def _check_repetition(source: str, examples: Iterator[tuple[int, Example]]) -> Iterator[Example]:
    """Yield the examples; raise `DataError` where a file is listed twice."""
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


def _warn_of_labels(source: str, examples: Sequence[Example]) -> list[str]:
    """Return a warning if labels contradict MURA's folders, such as `study1_positive`."""
    matches = ((example, mura_paths.IMAGE_PATH.search(example.uri)) for example in examples)
    wrong = [
        example
        for example, match in matches
        if match and LABELS[example.label] != match["label"].lower()
    ]
    if not wrong:
        return []
    return [
        f"{source}: the labels of {len(wrong)} of {len(examples)} images contradict the names of "
        f"their folders; {wrong[0].path} is taken as {LABELS[wrong[0].label]}: check that 0 means "
        "negative and 1 positive"
    ]


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
    except PermissionError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}); check access") from error
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
        path, uri = manifest_cells.resolve(root, given["path"], where)
        if "study" in given:
            study = manifest_columns.join_study(given.get("patient", ""), given["study"])
        else:
            study = study_folders.find_study(path, uri, is_grouped=False) or path
        patient = manifest_columns.normalise_value(given.get("patient", ""))
        patient = patient or study_folders.find_patient(path, uri) or study
        split = (
            manifest_cells.read_word(SPLIT_WORDS, given["split"], "split", where)
            if "split" in given
            else None
        )
        yield (
            line,
            Example(
                path=path,
                uri=uri,
                label=manifest_cells.read_word(
                    manifest_cells.LABEL_WORDS, given["label"], "label", where
                ),
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


def _read_cell(row: Mapping[str, str], column: str, where: str) -> str:
    if manifest_columns.is_blank(row[column]):
        raise DataError(
            f"{where}: the column {column} is blank; fill it in every row, or drop the column"
        )
    return row[column]
