"""Read a list of inputs: a path on each line, or CSV whose further columns go into the rows."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from batch_inference.outputs import schema
from batch_inference.outputs.records import Prediction, Rejection, replace_surrogates
from batch_inference.storage import dicomweb_address, filesystem, storage_errors
from trainer.errors import DataError
from trainer.files import manifest_columns, manifest_table
from trainer.files.manifest_table import Table

SUFFIXES = (".txt", ".csv")
STUDY_COLUMN = "study"
_OF_PREDICTIONS = {"probability", "logit", "sha256"}
"""Columns that tell rows of `predictions.csv` from a list with labels."""


@dataclasses.dataclass(frozen=True)
class Line:
    """Describes one input of a manifest.

    Attributes:
      path: path or URI as written.
      study: name of its study, after that of its patient where there is one; else empty.
      carried: (name, value) of all other columns.
      number: number of the line, for messages.
      is_mura: whether it stands in one of MURA's own lists, where it may be a study's folder.
    """

    path: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()
    number: int = dataclasses.field(default=0, compare=False)
    is_mura: bool = False


def is_manifest(location: str) -> bool:
    """Return whether an input is a list of inputs: its name ends in `.txt` or `.csv`, and it is no
    folder."""
    uri = filesystem.absolute(location)
    if dicomweb_address.is_address(uri):
        return False
    return uri.lower().endswith(SUFFIXES) and not pathlib.Path(uri).is_dir()


def read_lines(uri: str) -> Iterator[Line]:
    """Yield the inputs of a manifest of any length one by one, without lines that have no path.

    Raises:
      DataError: the file cannot be read, is not text, or its columns are wrong, as in
        `read_carried_columns`.
      StorageOutageError: the storage does not answer.
    """
    with _open_lines(uri) as lines:
        found = _parse_table(lines, uri) if _is_csv(uri) else _parse_plain(lines)
        yield from (line for line in found if line.path.strip())


def read_carried_columns(location: str) -> list[str]:
    """Return the names, in the rows, of a CSV manifest's columns other than its paths and `study`.

    Only the first line is read. A column whose name is that of one of ours, such as `label`,
    becomes `manifest_label`. An input that is not a CSV manifest has none.

    Raises:
      DataError: there is no column of paths, a column without a name, or a name twice.
    """
    table = _read_header(location)
    return list(_name_carried(table, location)) if table else []


def read_study_columns(location: str) -> dict[str, bool]:
    """Return the columns that may name a study, and whether each is the one that names studies.

    These are those carried, and `study` if any.

    Raises:
      DataError: as `read_carried_columns`.
    """
    table = _read_header(location)
    if table is None:
        return {}
    carried = _name_carried(table, location)
    if "study" not in table.roles:
        return dict.fromkeys(carried, False)
    own = (table.header[table.roles["study"]], STUDY_COLUMN)
    return {name: name in own for name in (*carried, STUDY_COLUMN)}


def has_labels(location: str) -> bool:
    """Return whether an input is a CSV manifest with a column of labels.

    In rows of `predictions.csv`, that column holds what a model called the images.

    Raises:
      DataError: as `read_carried_columns`.
    """
    table = _read_header(location)
    if table is None:
        return False
    names = map(manifest_columns.normalise_name, table.header)
    return "label" in table.roles and not _OF_PREDICTIONS.issubset(names)


def _read_header(location: str) -> Table | None:
    """Return the table of a CSV manifest for its header; None for all other inputs."""
    uri = filesystem.absolute(location)
    if not is_manifest(uri) or not _is_csv(uri):
        return None
    with _open_lines(uri) as lines:
        table = _read_table(lines, uri)
        return None if table.is_mura else table


@contextlib.contextmanager
def _open_lines(uri: str) -> Iterator[Iterable[str]]:
    """Yield the lines of a manifest.

    Raises:
      DataError, StorageOutageError: the manifest cannot be read, now or later.
    """
    advice = "expected a text file of paths in UTF-8 or UTF-16, or CSV with a column path"
    with (
        storage_errors.explain_failure(DataError, f"the manifest {uri} cannot be read", advice),
        storage_errors.translate_errors(),
        filesystem.open_text(uri) as text,
    ):
        yield text


def _read_table(lines: Iterable[str], uri: str) -> Table:
    return manifest_table.read_table(lines, f"the manifest {uri}", ("path",), fill_short_rows=True)


def _name_carried(table: Table, uri: str) -> dict[str, int]:
    """Return the index of each column that is carried into the rows, by its name there.

    Raises:
      DataError: two have one name.
    """
    ours = {column.name for row in (Prediction, Rejection) for column in schema.list_columns(row)}
    # Columns that the rows have already are not carried. A `study_id` is: somebody may look for
    # that name.
    carried = [
        (f"manifest_{name}" if name.casefold() in ours else name, index)
        for index, name in enumerate(table.header)
        if index != table.roles["path"] and manifest_columns.normalise_name(name) != STUDY_COLUMN
    ]
    manifest_table.check_different([name for name, _ in carried], f"the manifest {uri}")
    return dict(carried)


def _parse_table(lines: Iterable[str], uri: str) -> Iterator[Line]:
    """Yield the inputs of a CSV manifest."""
    table = _read_table(lines, uri)
    if table.is_mura:
        for row in table.rows:
            yield Line(row.cells[0].strip(), number=row.line, is_mura=True)
        return
    carried = _name_carried(table, uri)
    for row in table.rows:
        given = {
            role: "" if manifest_columns.is_blank(row.cells[index]) else row.cells[index]
            for role, index in table.roles.items()
        }
        study = given.get("study", "")
        patient = given.get("patient", "") if study else ""
        yield Line(
            row.cells[table.roles["path"]],
            manifest_columns.join_study(patient, study),
            tuple((name, replace_surrogates(row.cells[index])) for name, index in carried.items()),
            row.line,
        )


def _parse_plain(lines: Iterable[str]) -> Iterator[Line]:
    """Yield the inputs of a manifest with a path on each line."""
    return (Line(path.strip(), number=number) for number, path in enumerate(lines, 1))


def _is_csv(uri: str) -> bool:
    return uri.lower().endswith(".csv")
