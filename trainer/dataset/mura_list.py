"""Read one of MURA's own lists: rows without a header, each an image or a study."""

import contextlib
import dataclasses
import posixpath
import re
from collections.abc import Iterable, Iterator

from trainer import storage
from trainer.dataset import manifest_cells, mura
from trainer.dataset.example import Example
from trainer.errors import DataError
from trainer.files import folder_walk, mura_paths


@dataclasses.dataclass(frozen=True)
class Listed:
    """Describes a row of one of MURA's lists.

    Attributes:
      line: its number.
      path, uri: of an image or a study's folder; see `Example`.
      match: match of `IMAGE_PATH` or `STUDY_PATH`.
      label: what the list says; None where it says nothing.
    """

    line: int
    path: str
    uri: str
    match: re.Match[str]
    label: int | None


def read(source: str, root: str, rows: Iterable[tuple[int, list[str]]]) -> Iterator[Listed]:
    """Yield the rows of one of MURA's lists.

    The paths in it begin with `MURA-v1.1`, and the lists lie in this folder, which may have another
    name. So this beginning is removed, unless there is such a folder beside the list.
    """
    is_above = storage.exists(posixpath.join(root, mura_paths.ROOT))
    for line, cells in rows:
        where = f"{source} line {line}"
        if len(cells) > 2 or not mura_paths.is_listed(cells[0]):
            raise DataError(
                f"{where}: expected a path of MURA, and a label at most, found "
                f"{','.join(cells)[:200]!r}"
            )
        label = (
            manifest_cells.read_word(manifest_cells.LABEL_WORDS, cells[1], "label", where)
            if len(cells) > 1
            else None
        )
        listed = cells[0] if is_above else cells[0].removeprefix(f"{mura_paths.ROOT}/")
        path, uri = manifest_cells.resolve(root, listed, where)
        match = mura_paths.STUDY_PATH.search(path) or mura_paths.IMAGE_PATH.search(path)
        if match:
            yield Listed(line, path, uri, match, label)


def list_images(row: Listed) -> Iterator[tuple[int, Example]]:
    """Yield the image of a row, or those of its study, with the number of the line."""
    names: list[str] = []
    if mura_paths.STUDY_PATH.search(row.path):
        with contextlib.suppress(PermissionError):
            names = [name.rstrip("/") for name in storage.list_folder(row.uri)]
    shown = [name for name in sorted(names) if not folder_walk.is_hidden(name)]
    images = [(posixpath.join(row.path, name), posixpath.join(row.uri, name)) for name in shown]
    # A study without files that can be listed stands for itself and becomes a rejection.
    for path, uri in images or [(row.path, row.uri)]:
        yield row.line, mura.make_example(path, uri, row.match, row.label)
