"""Which files an input names: a folder, a glob, a manifest, local or remote. Listed one by one, in no order."""

import fnmatch
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

from batch_inference.inputs import manifest
from batch_inference.outputs import output_folder
from batch_inference.outputs.records import Source, printable
from batch_inference.storage import filesystem
from trainer.errors import ConfigError

_MAGIC = re.compile(r"[*?\[]")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]+\Z")


def find(
    location: str, exclude: Sequence[str] = (), recursive: bool = True, output: str | None = None
) -> Iterator[Source]:
    """Yields every input under `location`, each once per mention.

    A folder counts with all its files at any depth but hidden ones (leading dot). What looks like a file and cannot be
    read (a dangling link, a folder without permission, a link to a folder that holds it or that another link has led to) is yielded too,
    so that it ends as a rejection.

    Args:
      location: folder, glob pattern (`**` for any depth), remote prefix, or manifest: `.txt` with a path or URI on each
        line, `.csv` with a column `path` (or `uri`, `file`, `image`) and, if wanted, `study`; its further columns are carried
        into the rows. A manifest's relative paths start at its folder.
      exclude: glob patterns; an input is left out whose path relative to the root, or any single name in it, matches one, and
        so is all that lies in a folder that matches.
      recursive: False takes only the files of a folder itself.
      output: absolute URI of the folder whose results are no inputs, should a pattern or a link lead there.

    Patterns take the extension that they end with in upper and lower case.

    Raises:
      ConfigError: the manifest names a result in `output`.
      DataError: the manifest cannot be read, or its columns are wrong.
      StorageError: no bucket of that name, no access, no answer.
    """
    uri = filesystem.absolute(location)
    if manifest.is_manifest(uri):
        found = _manifest(uri)
    elif filesystem.is_remote(uri):
        found = _remote(uri, recursive)
    else:
        found = _local(uri, recursive)
    is_result = output_folder.match_results(output) if output else lambda _: False
    for source in found:
        if _excluded(source.name, tuple(exclude)):
            continue
        if not is_result(source.uri):
            yield source
        elif manifest.is_manifest(uri):
            raise ConfigError(
                f"the manifest names {printable(source.uri)}, a result in --output={output}; choose another folder"
            )


def has_any(
    location: str, exclude: Sequence[str] = (), recursive: bool = True, output: str | None = None
) -> bool:
    """Whether there is anything at all to find; no more is listed than it takes to know."""
    return next(find(location, exclude, recursive, output), None) is not None


def covers(location: str, folder: str) -> bool:
    """Whether an input takes in what lies in a folder, now or later; what a manifest lists, it lists one by one."""
    uri = filesystem.absolute(location)
    if manifest.is_manifest(uri):
        return False
    if not is_pattern(uri) or "**" in uri:
        return filesystem.is_within(folder, find_root(uri))
    place = pathlib.PurePosixPath(folder)
    return any(above.match(_any_case(uri)) for above in (place, *place.parents))


def find_root(location: str) -> str:
    """The folder that names are relative to: the input itself, or a pattern's part before its first wildcard."""
    uri = filesystem.absolute(location)
    if is_pattern(uri):
        return uri[: _MAGIC.search(uri).start()].rpartition("/")[0]  # type: ignore[union-attr]
    if manifest.is_manifest(uri) or pathlib.Path(uri).is_file():
        return uri.rpartition("/")[0]
    return uri


def is_pattern(uri: str) -> bool:
    """Whether `uri` is to be expanded: it has wildcards, and no local file or folder bears that very name."""
    return bool(_MAGIC.search(uri)) and (filesystem.is_remote(uri) or not os.path.lexists(uri))


def _source(uri: str, root: str, line: manifest.Line | None = None) -> Source:
    """Names an input after its path below `root`."""
    name = uri[len(root.rstrip("/")) + 1 :] if uri.startswith(root.rstrip("/") + "/") else uri
    return Source(uri, name, line.study, line.carried) if line else Source(uri, name)


def _any_case(pattern: str) -> str:
    """`*.png` -> `*.[pP][nN][gG]`: whoever asks for the files of a format does not know how each is spelt."""

    def both(match: re.Match) -> str:
        return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in match[0])

    return _EXTENSION.sub(both, pattern)


@functools.lru_cache
def _patterns(exclude: tuple[str, ...]) -> Callable[[str], re.Match | None]:
    return re.compile("|".join(fnmatch.translate(_any_case(pattern)) for pattern in exclude)).match


def _excluded(name: str, exclude: tuple[str, ...]) -> bool:
    if not exclude:
        return False
    matches, parts = _patterns(exclude), name.split("/")
    return any(matches(part) for part in parts) or any(
        matches("/".join(parts[:end])) for end in range(2, len(parts) + 1)
    )


def _local(uri: str, recursive: bool) -> Iterator[Source]:
    root = find_root(uri)
    pattern = uri[len(root.rstrip("/")) + 1 :] if is_pattern(uri) else ""
    for path in _expand(root, pattern) if pattern else [uri] * os.path.lexists(uri):
        if not pathlib.Path(path).is_dir():
            yield _source(path, root)
        # `**` matches what is in a folder besides the folder; walking it again would repeat its files.
        elif "**" not in pattern:
            for file in _walk(path, recursive):
                yield _source(file, root)


def _expand(root: str, pattern: str) -> Iterator[str]:
    # pathlib's `**`, other than glob's, does not go round in links to folders.
    matched = map(str, pathlib.Path(root or "/").glob(_any_case(pattern)))
    return (path for path in matched if "/." not in path[len(root) :])


def _walk(top: str, recursive: bool) -> Iterator[str]:
    """Files below a folder. Links to folders are followed, unless the folder holds the link or another link has led to it."""
    folder = top
    ancestors: tuple[str, ...] = (os.path.realpath(top),)
    linked: set[str] = set()
    # What is still to be listed of each folder on the way down, by name: paths of a million folders would fill memory.
    pending: list[tuple[str, tuple[str, ...], list[str]]] = []
    while True:
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    target = os.path.realpath(entry.path) if entry.is_symlink() else ""
                    if not _is_folder(entry) or target in ancestors or target in linked:
                        yield entry.path
                    elif recursive:
                        below.append(entry.name)
                        if target:
                            linked.add(target)
        except OSError:
            yield folder
        pending.append((folder, ancestors, below))
        while not pending[-1][-1]:
            pending.pop()
            if not pending:
                return
        parent, of_parent, names = pending[-1]
        name = names.pop()
        folder = os.path.join(parent, name)
        # pathlib would keep every name that it has seen.
        is_link = os.path.islink(folder)  # noqa: PTH114
        ancestors = (
            *of_parent,
            os.path.realpath(folder) if is_link else os.path.join(of_parent[-1], name),
        )


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _remote(uri: str, recursive: bool) -> Iterator[Source]:
    root = find_root(uri)
    if is_pattern(uri):
        uri = _any_case(uri)
    elif filesystem.exists(uri):
        yield _source(uri, uri.rpartition("/")[0])
        return
    else:
        uri = filesystem.join(uri, "**" if recursive else "*")
    for path in filesystem.match(uri):
        # A name that ends in a slash is how storage browsers mark an empty folder.
        if not path.endswith("/") and not any(
            part.startswith(".") for part in path[len(root) + 1 :].split("/")
        ):
            yield _source(path, root)


def _manifest(uri: str) -> Iterator[Source]:
    root = find_root(uri)
    for line in manifest.read_lines(uri):
        path = line.path
        target = (
            path
            if "://" in path or pathlib.PurePath(path).is_absolute()
            else filesystem.join(root, path)
        )
        yield _source(filesystem.absolute(target), root, line)
