"""Which files an input names: a folder, a glob, a manifest, local or remote."""

import os
import pathlib
import posixpath
import re
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems

from batch_inference import manifest, storage
from batch_inference.records import Source, printable

_MAGIC = re.compile(r"[*?\[]")


def find(location: str) -> Iterator[Source]:
    """Yields every input under `location`, each once per mention, folders in order of name.

    A folder counts with all its files at any depth but hidden ones (leading dot). What looks like a file and cannot be
    read (a dangling link, a folder without permission, a link to a folder that holds it) is yielded too, so that it ends as a rejection.

    Args:
      location: folder, glob pattern (`**` for any depth), remote prefix, or manifest: `.txt` with a path or URI on each
        line, `.csv` with a column `path` (or `uri`, `file`, `image`) and, if wanted, `study`; its further columns are carried
        into the rows. A manifest's relative paths start at its folder.

    Raises:
      DataError: the manifest cannot be read, or lacks the column.
    """
    uri = storage.absolute(location)
    if manifest.is_manifest(uri):
        yield from _manifest(uri)
    elif storage.is_remote(uri):
        yield from _remote(uri)
    else:
        yield from _local(uri)


def any_in(location: str) -> bool:
    """Whether `location` names anything at all; of a remote folder no more than one entry is listed."""
    uri = storage.absolute(location)
    if not storage.is_remote(uri) or manifest.is_manifest(uri):
        return next(find(location), None) is not None
    patterns = [uri] if is_pattern(uri) else [uri, storage.join(uri, "**")]
    return any(result.metadata_list for result in FileSystems.match(patterns, limits=[1] * len(patterns)))


def root_of(location: str) -> str:
    """The folder that names are relative to: the input itself, or a pattern's part before its first wildcard."""
    uri = storage.absolute(location)
    if is_pattern(uri):
        return uri[: _MAGIC.search(uri).start()].rpartition("/")[0]  # type: ignore[union-attr]
    if manifest.is_manifest(uri) or pathlib.Path(uri).is_file():
        return uri.rpartition("/")[0]
    return uri


def is_pattern(uri: str) -> bool:
    """Whether `uri` is to be expanded: it has wildcards, and no local file or folder bears that very name."""
    return bool(_MAGIC.search(uri)) and (storage.is_remote(uri) or not os.path.lexists(uri))


def source(uri: str, root: str, study: str = "", carried: tuple[tuple[str, str], ...] = ()) -> Source:
    """Names an input after its path below `root`, and its study after its folder unless `study` says otherwise."""
    name = uri[len(root) + 1 :] if uri.startswith(root.rstrip("/") + "/") else uri
    folder = posixpath.dirname(name) or posixpath.basename(root)
    return Source(uri, name, printable(study or folder), carried)


def _local(uri: str) -> Iterator[Source]:
    root = root_of(uri)
    for path in _expand(uri, root):
        if not pathlib.Path(path).is_dir():
            yield source(path, root)
        # `**` matches what is in a folder besides the folder; walking it again would repeat its files.
        elif "**" not in _pattern(uri, root):
            for file in _walk(path):
                yield source(file, root)


def _expand(uri: str, root: str) -> list[str]:
    if not is_pattern(uri):
        return [uri] if os.path.lexists(uri) else []
    # pathlib's `**`, other than glob's, does not go round in links to folders.
    matched = (str(path) for path in pathlib.Path(root or "/").glob(_pattern(uri, root)))
    return sorted(path for path in matched if "/." not in path[len(root) :])


def _pattern(uri: str, root: str) -> str:
    return uri[len(root) + 1 :] if is_pattern(uri) else ""


def _walk(top: str) -> Iterator[str]:
    """Files below a folder. Links to folders are followed, unless the folder holds the link."""
    pending: list[tuple[str, tuple[str, ...]]] = [(top, (os.path.realpath(top),))]
    while pending:
        folder, ancestors = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield entry.path
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(ancestors[-1], entry.name)
            if real in ancestors:
                yield entry.path
            else:
                folders.append((entry.path, (*ancestors, real)))
        pending.extend(reversed(folders))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _remote(uri: str) -> Iterator[Source]:
    root = root_of(uri)
    if not is_pattern(uri):
        if FileSystems.exists(uri):
            yield source(uri, uri.rpartition("/")[0])
            return
        uri = storage.join(uri, "**")
    for match in FileSystems.match([uri]):
        for entry in match.metadata_list:
            name = entry.path[len(root) + 1 :]
            # A name that ends in a slash is how storage browsers mark an empty folder.
            if not entry.path.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
                yield source(entry.path, root)


def _manifest(uri: str) -> Iterator[Source]:
    root = root_of(uri)
    for line in manifest.lines(uri):
        path = line.path
        target = path if storage.is_remote(path) or pathlib.PurePath(path).is_absolute() else storage.join(root, path)
        yield source(storage.absolute(target), root, line.study, line.carried)
