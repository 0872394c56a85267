"""Read the manifest layout: a CSV file `path,label[,patient][,study][,split]`, or a list of MURA.

Further columns become attributes, by which an evaluation can be sliced. MURA's own lists
(`train_image_paths.csv`, `valid_labeled_studies.csv`) have no header. A row is an image or a study,
with or without a label.
"""

import contextlib
import dataclasses
import io
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO, TypeVar

from trainer import storage
from trainer.dataset import mura
from trainer.dataset.example import DERIVED_ATTRIBUTES, LABELS, Example
from trainer.dataset.listing import Listing, Omission
from trainer.errors import DataError
from trainer.files import (
    folder_walk,
    manifest_columns,
    manifest_table,
    manifest_text,
    mura_paths,
    regular_file,
    study_folders,
    urls,
)
from trainer.files.manifest_table import Row

# Spreadsheet programs write numbers and truth values in ways of their own.
_LABEL_WORDS = study_folders.LABEL_WORDS | {
    "0.0": 0,
    "false": 0,
    "no": 0,
    "1.0": 1,
    "true": 1,
    "yes": 1,
}
_MAX_BYTES = 1 << 30
"""Largest manifest that is read: millions of images."""

_NumberedExamples = Iterator[tuple[Row, Example]]
_T = TypeVar("_T")


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
    table = manifest_table.read_table(open_text(source), source, ("path", "label"))
    omissions: Sequence[Omission] = ()
    if table.is_mura:
        listed, omissions = _list_mura(table.rows, source, root, body_parts)
    else:
        listed = _list_table(table, source, root)
    lines: dict[str, int] = {}
    examples = []
    for row, example in listed:
        manifest_table.check_new(lines, urls.absolute(example.uri), row, example.path)
        examples.append(example)
    if not examples and not omissions:
        raise DataError(f"{source} lists no file; add one row per image below the header")
    examples.sort(key=lambda example: example.path)
    warnings = _list_label_warnings(source, examples)
    return Listing(examples, omissions, body_parts if table.is_mura else (), warnings)


def open_text(source: str) -> TextIO:
    """Open a CSV file, for `manifest_table`.

    Raises:
      DataError: there is no such file, or it cannot be read.
    """
    try:
        if urls.is_remote(source):
            content = storage.read_bytes(source)
        else:
            content = regular_file.read(source, _MAX_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        content = None
    except PermissionError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}); check access") from error
    except (regular_file.NotRegularError, regular_file.TooLargeError) as error:
        raise DataError(
            f"{source} is not a file that can be read as a manifest ({error}); name a CSV file with"
            " the columns path,label"
        ) from error
    if content is None:
        raise DataError(
            f"{source} is not a file; the manifest layout expects a CSV file with the columns "
            "path,label"
        )
    return manifest_text.open_text(io.BytesIO(content), errors="strict")


def _list_mura(
    rows: Iterable[Row], source: str, root: str, body_parts: Sequence[str]
) -> tuple[_NumberedExamples, list[Omission]]:
    """Return the images of MURA's list, with their rows, and the rows of other body parts."""
    has_mura = storage.exists(posixpath.join(root, mura_paths.ROOT))
    listed, matches = [], {}
    for row in rows:
        cell, *labels = (cell.strip() for cell in row.cells)
        path, uri = _resolve(manifest_table.resolve_in_mura(cell, root, has_mura, row.where), root)
        match = mura_paths.STUDY_PATH.search(path) or mura_paths.IMAGE_PATH.search(path)
        if len(labels) > 1 or not match:
            raise DataError(
                f"{row.where}: expected a path of MURA, and a label at most, found "
                f"{','.join(row.cells)[:200]!r}"
            )
        label = _read_word(_LABEL_WORDS, labels[0], "label", row.where) if labels else None
        matches[path] = match
        listed.append((row, path, mura.make_example(path, uri, match, label)))
    taken, omissions = mura.select_body_parts(matches, body_parts, source)
    chosen = set(taken)
    images = (
        (row, image)
        for row, path, example in listed
        if path in chosen
        for image in _list_study(example)
    )
    return images, omissions


def _list_study(listed: Example) -> Iterator[Example]:
    """Yield the images of a study that is listed as an example, or the image itself."""
    names: list[str] = []
    if mura_paths.STUDY_PATH.search(listed.path):
        with contextlib.suppress(PermissionError):
            names = [name.rstrip("/") for name in storage.list_folder(listed.uri)]
    shown = [name for name in sorted(names) if not folder_walk.is_hidden(name)]
    for name in shown:
        yield dataclasses.replace(
            listed, path=posixpath.join(listed.path, name), uri=posixpath.join(listed.uri, name)
        )
    if not shown:  # A study without files that can be listed becomes a rejection.
        yield listed


def _list_table(table: manifest_table.Table, source: str, root: str) -> _NumberedExamples:
    """Yield the examples of a table with a header, with their rows."""
    header = [manifest_columns.normalise_name(name) for name in table.header]
    if clash := set(header) & set(DERIVED_ATTRIBUTES):
        raise DataError(
            f"{source}: the column {min(clash)} has a name that preparation uses itself; rename it"
        )
    for row in table.rows:
        cells = [cell.strip() for cell in row.cells]
        for index in table.roles.values():
            if manifest_columns.is_blank(cells[index]):
                raise DataError(
                    f"{row.where}: the column {header[index]} is blank; fill it in every row, or "
                    "drop the column"
                )
        given = {role: cells[index] for role, index in table.roles.items()}
        path, uri = _resolve(manifest_text.resolve_path(given["path"], root, row.where), root)
        patient = given.get("patient", "")
        if "study" in given:
            study = manifest_columns.join_study(patient, given["study"])
        else:
            study = study_folders.find_study(path, uri, is_grouped=False) or path
        split = given.get("split")
        yield (
            row,
            Example(
                path=path,
                uri=uri,
                label=_read_word(_LABEL_WORDS, given["label"], "label", row.where),
                patient_id=manifest_columns.normalise_value(patient)
                or study_folders.find_patient(path, uri)
                or study,
                study_id=study,
                split=split and _read_word(study_folders.SPLIT_WORDS, split, "split", row.where),
                attributes={
                    name: cell
                    for index, (name, cell) in enumerate(zip(header, cells, strict=True))
                    if index not in table.roles.values()
                },
            ),
        )


def _resolve(uri: str, root: str) -> tuple[str, str]:
    """Return the name of a listed file in the data set, and its URI."""
    return (uri.removeprefix(root.rstrip("/") + "/") if root else uri), uri


def _read_word(words: Mapping[str, _T], cell: str, name: str, where: str) -> _T:
    """Return what a word stands for; raise `DataError` for other words."""
    if cell.lower() not in words:
        raise DataError(
            f"{where}: the {name} is {cell!r}; expected one of {', '.join(words)}; correct the cell"
        )
    return words[cell.lower()]


def _list_label_warnings(source: str, examples: Sequence[Example]) -> list[str]:
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
