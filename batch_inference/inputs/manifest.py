"""Reads a list of inputs: a path on each line, or CSV whose further columns go into the rows."""

import contextlib
import csv
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from batch_inference.outputs import schema
from batch_inference.outputs.records import Prediction, Rejection, readable
from batch_inference.storage import dicomweb_address, filesystem, storage_errors
from trainer.errors import DataError
from trainer.files import manifest_columns, manifest_text, mura_paths

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
      of_mura: whether it stands in one of MURA's own lists, where it may be a study's folder.
    """

    path: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()
    number: int = dataclasses.field(default=0, compare=False)
    of_mura: bool = False


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
      OutageError: the storage does not answer.
    """
    with _explain_failures(uri), filesystem.open_text(uri) as text:
        yield from _parse_csv(text, uri) if _is_csv(uri) else _parse_plain(text)


def read_carried_columns(location: str) -> list[str]:
    """Return the names, in the rows, of a CSV manifest's columns other than its paths and `study`.

    Only the first line is read. A column whose name is that of one of ours, such as `label`,
    becomes `manifest_label`. An input that is not a CSV manifest has none.

    Raises:
      DataError: there is no column of paths, a column without a name, or a name twice.
    """
    header = _read_header(location)
    return list(header.carried) if header else []


def read_study_columns(location: str) -> dict[str, bool]:
    """Return the columns that may name a study, and whether each is the one that names studies.

    These are those carried, and `study` if any.

    Raises:
      DataError: as `read_carried_columns`.
    """
    header = _read_header(location)
    if header is None:
        return {}
    if header.study is None:
        return dict.fromkeys(header.carried, False)
    own = (header.names[header.study], STUDY_COLUMN)
    return {name: name in own for name in (*header.carried, STUDY_COLUMN)}


def has_labels(location: str) -> bool:
    """Return whether an input is a CSV manifest with a column of labels.

    In rows of `predictions.csv`, that column holds what a model called the images.

    Raises:
      DataError: as `read_carried_columns`.
    """
    header = _read_header(location)
    return header is not None and header.has_labels


class _Header:
    """The first line of a CSV manifest: the indices of the columns by their role."""

    def __init__(self, names: list[str], uri: str):
        """Take the cells of the line, and the manifest's URI for errors (`DataError`)."""
        self.names = names
        plain = [manifest_columns.normalise_name(name) for name in names]
        role = {
            role: plain.index(column) for role, column in manifest_columns.find_roles(plain).items()
        }
        if "path" not in role:
            expected = list(manifest_columns.NAMES["path"])
            raise DataError(
                f"the manifest {uri} has the columns {names}; expected one of {expected}"
            )
        self.path, self.study, self.patient = role["path"], role.get("study"), role.get("patient")
        self.has_labels = "label" in role and not _OF_PREDICTIONS.issubset(plain)
        ours = {
            column.name for row in (Prediction, Rejection) for column in schema.list_columns(row)
        }
        # Columns that the rows have already are not carried. A `study_id` is: somebody may look for
        # that name.
        fixed = [
            index
            for index in range(len(names))
            if index == self.path or plain[index] == STUDY_COLUMN
        ]
        carried = [index for index in range(len(names)) if index not in fixed]
        if any(
            not names[index].strip() or names[index] != readable(names[index]) for index in carried
        ):
            raise DataError(
                f"the manifest {uri} has a column without a name in UTF-8; name it, or remove it"
            )
        in_rows = [
            f"manifest_{names[index]}" if names[index].casefold() in ours else names[index]
            for index in carried
        ]
        if len({name.casefold() for name in [*in_rows, *(names[index] for index in fixed)]}) < len(
            names
        ):
            raise DataError(
                f"the manifest {uri} has two columns of one name among {names}; rename one"
            )
        self.carried = dict(zip(in_rows, carried, strict=True))

    def parse(self, values: list[str], number: int) -> Line:
        """Return the input of a row; missing cells are empty.

        Raises:
          StorageError: there are more cells than in the header, so that they may be shifted.
        """
        if not manifest_text.is_blank(values[len(self.names) :]):
            raise storage_errors.StorageError(
                f"line {number}: expected {len(self.names)} cells as in the header, got"
                f" {len(values)}; put quotation marks around a cell that contains a separator"
            )
        values += [""] * (len(self.names) - len(values))
        carried = tuple((name, readable(values[index])) for name, index in self.carried.items())
        study, patient = (
            "" if index is None or manifest_columns.is_blank(values[index]) else values[index]
            for index in (self.study, self.patient)
        )
        patient = patient if study else ""
        return Line(values[self.path], manifest_columns.join_study(patient, study), carried, number)


def _read_header(location: str) -> _Header | None:
    uri = filesystem.absolute(location)
    if not is_manifest(uri) or not _is_csv(uri):
        return None
    with _explain_failures(uri), filesystem.open_text(uri) as text:
        first: list[str] = next(filter(None, _Rows(text)), [])
        return None if _is_of_mura(first) else _Header(first, uri)


@contextlib.contextmanager
def _explain_failures(uri: str) -> Iterator[None]:
    """Raise a `DataError` or `OutageError` for what keeps the manifest from being read."""
    advice = "expected a text file of paths in UTF-8 or UTF-16, or CSV with a column path"
    with (
        storage_errors.explain_failure(DataError, f"the manifest {uri} cannot be read", advice),
        storage_errors.translate_errors(),
    ):
        yield


def _parse_csv(text: Iterator[str], uri: str) -> Iterator[Line]:
    """Yield the inputs of a CSV manifest. MURA's lists have no header; their first cells count."""
    rows = _Rows(text)
    first: list[str] = next(filter(None, rows), [])
    if _is_of_mura(first):
        for values in itertools.chain([first], rows):
            if values and values[0].strip():
                yield Line(values[0].strip(), number=rows.line_num, of_mura=True)
        return
    header = _Header(first, uri)
    for values in rows:
        line = header.parse(values, rows.line_num)
        if line.path.strip():
            yield line


def _is_of_mura(first: list[str]) -> bool:
    return bool(first) and mura_paths.is_listed(first[0].strip())


class _Rows(Iterator[list[str]]):
    """Yields the rows of CSV, header first.

    It is strict: otherwise a quotation mark that is not closed would swallow the rows behind it.
    """

    def __init__(self, text: Iterator[str]):
        self._reader = manifest_text.read_csv(text)

    @property
    def line_num(self) -> int:
        """Return how many lines were read so far."""
        return self._reader.line_num

    def __next__(self) -> list[str]:
        begin = self.line_num + 1
        try:
            return next(self._reader)
        except csv.Error as error:
            raise storage_errors.StorageError(f"line {begin} is not CSV: {error}") from error


def _parse_plain(text: Iterator[str]) -> Iterator[Line]:
    """Yield the inputs of a manifest with a path on each line."""
    for number, path in enumerate(map(str.strip, text), 1):
        if path:
            yield Line(path, number=number)


def _is_csv(uri: str) -> bool:
    return uri.lower().endswith(".csv")
