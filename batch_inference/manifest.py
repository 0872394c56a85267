"""A list of inputs in a file: a path on each line, or CSV whose further columns are carried into the rows."""

import csv
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from batch_inference import schema, storage
from batch_inference.records import Prediction, Rejection, printable
from trainer.errors import DataError

SUFFIXES = (".txt", ".csv")
PATH_COLUMNS = ("path", "uri", "file", "image", "filename", "file_name", "file_path", "image_path")
STUDY_COLUMN = "study"
_SEPARATORS = ",;\t"
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")


@dataclasses.dataclass(frozen=True)
class Line:
    """One input of a manifest: its path or URI as written, its study where one is named, and (name, value) of all else."""

    path: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()


def is_manifest(location: str) -> bool:
    """Whether an input is a list of inputs: `.txt` or `.csv`, and no folder of that name."""
    uri = storage.absolute(location)
    return uri.lower().endswith(SUFFIXES) and not pathlib.Path(uri).is_dir()


def lines(uri: str) -> Iterator[Line]:
    """Yields the inputs of a manifest one by one, however long it is. Lines without a path are passed over.

    Raises:
      DataError: it cannot be read, is no UTF-8 text, or its columns are not as `columns` wants them.
    """
    try:
        with storage.open_text(uri) as text:
            yield from _csv(text, uri) if _is_csv(uri) else _plain(text, uri)
    except (OSError, csv.Error) as error:
        raise DataError(f"the manifest {uri} cannot be read ({error}); expected a UTF-8 text or CSV file of paths") from error


def columns(location: str) -> list[str]:
    """Names of all columns of a CSV manifest, by its first line alone; none for any other input.

    Raises:
      DataError: no column of paths, a column without a name, or a name twice.
    """
    uri = storage.absolute(location)
    if not is_manifest(uri) or not _is_csv(uri):
        return []
    try:
        with storage.open_text(uri) as text:
            return _Header(next(_rows(text, uri), []), uri).names
    except (OSError, csv.Error) as error:
        raise DataError(f"the manifest {uri} cannot be read ({error}); expected a CSV file with a column path") from error


def carried_columns(location: str) -> list[str]:
    """Names that a manifest's columns have in the rows: all but its paths and its studies. Raises as `columns`.

    A column with the name of one of ours, as the `label` of a manifest that was trained on, becomes `manifest_label`.
    """
    names = columns(location)
    return list(_Header(names, storage.absolute(location)).carried) if names else []


class _Header:
    """The first line of a CSV manifest: where the path, the study and the carried columns stand."""

    def __init__(self, names: list[str], uri: str):
        self.names = names
        plain = [name.strip().lower() for name in names]
        path = next((name for name in PATH_COLUMNS if name in plain), None)
        if path is None:
            raise DataError(f"the manifest {uri} has the columns {names}; expected one of {list(PATH_COLUMNS)}")
        self.path = plain.index(path)
        self.study = names.index(STUDY_COLUMN) if STUDY_COLUMN in names else None
        ours = {column.name for row in (Prediction, Rejection) for column in schema.columns(row)}
        carried = [index for index in range(len(names)) if index not in (self.path, self.study)]
        if any(not names[index].strip() or names[index] != printable(names[index]) for index in carried):
            raise DataError(f"the manifest {uri} has a column without a (UTF-8) name; name it, or leave it out")
        in_rows = [f"manifest_{names[index]}" if names[index].casefold() in ours else names[index] for index in carried]
        fixed = [names[index] for index in (self.path, self.study) if index is not None]
        if len({name.casefold() for name in [*in_rows, *fixed]}) < len(names):
            raise DataError(f"the manifest {uri} has two columns of one name among {names}; rename one")
        self.carried = dict(zip(in_rows, carried, strict=True))

    def line(self, values: list[str]) -> Line:
        """A row of the file; what is missing at its end is empty, what is too much is left out."""
        values += [""] * (len(self.names) - len(values))
        carried = tuple((name, printable(values[index])) for name, index in self.carried.items())
        return Line(values[self.path], "" if self.study is None else values[self.study], carried)


def _csv(text: Iterator[str], uri: str) -> Iterator[Line]:
    rows = _rows(text, uri)
    header = _Header(next(rows, []), uri)
    yield from (line for line in map(header.line, rows) if line.path)


def _rows(text: Iterator[str], uri: str) -> Iterator[list[str]]:
    """The rows of CSV, header first, with commas, semicolons or tabs between the cells."""
    checked = _checked(text, uri)
    first = next(checked, "")
    return csv.reader(itertools.chain([first], checked), delimiter=max(_SEPARATORS, key=first.count))


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
