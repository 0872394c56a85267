"""A list of inputs in a file: a path on each line, or CSV whose further columns are carried into the rows."""

import contextlib
import csv
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from batch_inference.outputs import schema
from batch_inference.outputs.records import Prediction, Rejection, readable
from batch_inference.storage import filesystem
from trainer import manifest_columns
from trainer.errors import DataError

SUFFIXES = (".txt", ".csv")
STUDY_COLUMN = "study"
_SEPARATORS = ",;\t"
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")


@dataclasses.dataclass(frozen=True)
class Line:
    """One input of a manifest: its path or URI as written, its study (behind its patient, if named) where one is named, and (name, value) of all else."""

    path: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()


def is_manifest(location: str) -> bool:
    """Whether an input is a list of inputs: `.txt` or `.csv`, and no folder of that name."""
    uri = filesystem.absolute(location)
    return uri.lower().endswith(SUFFIXES) and not pathlib.Path(uri).is_dir()


def read_lines(uri: str) -> Iterator[Line]:
    """Yields the inputs of a manifest one by one, however long it is. Lines without a path are passed over.

    Raises:
      DataError: it cannot be read, is no UTF-8 text, or its columns are not as `carried_columns` wants them.
      OutageError: the storage does not answer.
    """
    with _readable(uri), filesystem.open_text(uri) as text:
        yield from _csv(text, uri) if _is_csv(uri) else _plain(text, uri)


def read_carried_columns(location: str) -> list[str]:
    """Names that the columns of a CSV manifest have in the rows, all but its paths and its `study`; by its first line alone.

    A column with the name of one of ours, as the `label` of a manifest that was trained on, becomes `manifest_label`. None for any
    other input.

    Raises:
      DataError: no column of paths, a column without a name, or a name twice.
    """
    header = _header(location)
    return list(header.carried) if header else []


def read_study_columns(location: str) -> list[str]:
    """Names of the columns that may tell the studies apart: those carried and, if one plays that role, `study`. Raises as they."""
    header = _header(location)
    if header is None:
        return []
    return [*header.carried, *([STUDY_COLUMN] if header.study is not None else [])]


class _Header:
    """The first line of a CSV manifest: where the path, the study and the carried columns stand."""

    def __init__(self, names: list[str], uri: str):
        self.names = names
        plain = [manifest_columns.plain(name) for name in names]
        role = {role: plain.index(column) for role, column in manifest_columns.roles(plain).items()}
        if "path" not in role:
            expected = list(manifest_columns.NAMES["path"])
            raise DataError(
                f"the manifest {uri} has the columns {names}; expected one of {expected}"
            )
        self.path, self.study, self.patient = role["path"], role.get("study"), role.get("patient")
        ours = {
            column.name for row in (Prediction, Rejection) for column in schema.list_columns(row)
        }
        # What the rows say in a column of their own need not be carried; a `study_id` has a name that somebody may look for.
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
                f"the manifest {uri} has a column without a (UTF-8) name; name it, or leave it out"
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

    def line(self, values: list[str]) -> Line:
        """A row of the file; what is missing at its end is empty, what is too much is left out."""
        values += [""] * (len(self.names) - len(values))
        carried = tuple((name, readable(values[index])) for name, index in self.carried.items())
        study = "" if self.study is None else values[self.study]
        patient = "" if self.patient is None or not study else values[self.patient]
        return Line(values[self.path], manifest_columns.study(patient, study), carried)


def _header(location: str) -> _Header | None:
    uri = filesystem.absolute(location)
    if not is_manifest(uri) or not _is_csv(uri):
        return None
    with _readable(uri), filesystem.open_text(uri) as text:
        return _Header(next(_rows(text, uri), []), uri)


@contextlib.contextmanager
def _readable(uri: str) -> Iterator[None]:
    advice = "expected a UTF-8 text file of paths, or CSV with a column path"
    with (
        filesystem.refusing(DataError, f"the manifest {uri} cannot be read", advice),
        filesystem.told(),
    ):
        yield


def _csv(text: Iterator[str], uri: str) -> Iterator[Line]:
    rows = _rows(text, uri)
    header = _Header(next(rows, []), uri)
    yield from (line for line in map(header.line, rows) if line.path)


def _rows(text: Iterator[str], uri: str) -> Iterator[list[str]]:
    """The rows of CSV, header first, with commas, semicolons or tabs between the cells."""
    checked = _checked(text, uri)
    first = next(checked, "")
    return csv.reader(
        itertools.chain([first], checked), delimiter=max(_SEPARATORS, key=first.count)
    )


def _plain(text: Iterator[str], uri: str) -> Iterator[Line]:
    yield from (Line(path) for path in map(str.strip, _checked(text, uri)) if path)


def _checked(text: Iterator[str], uri: str) -> Iterator[str]:
    first = next(text, "")
    if first.startswith(_UTF_16):
        raise DataError(f"the manifest {uri} is UTF-16; save it as UTF-8")
    yield first
    yield from text


def _is_csv(uri: str) -> bool:
    return uri.lower().endswith(".csv")
