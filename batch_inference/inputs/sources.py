"""Find the files of an input one by one.

An input is a folder, a glob or a manifest, local or remote, or a query of a DICOM archive.
"""

import fnmatch
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.inputs import manifest
from batch_inference.inputs.study_key import StudyKey
from batch_inference.options import Options
from batch_inference.outputs import output_folder
from batch_inference.outputs.records import Source, escape_reversibly
from batch_inference.storage import dicomweb, dicomweb_address, filesystem, storage_errors
from trainer.errors import ConfigError
from trainer.files import folder_walk, manifest_table, manifest_text, mura_paths

_MAGIC = re.compile(r"[*?\[]")
_PUBLIC_KEY = StudyKey()
_EXTENSION = re.compile(r"\.[A-Za-z0-9]+\Z")


@composite
def FindInputs(pipeline: beam.Pipeline, options: Options) -> beam.PCollection:
    """Find the inputs, as (place in the list, Source) for each mention of one.

    Args:
      options: the input, what is excluded, and the output are used.
    """
    exclude, recursive = options.exclude, options.recursive
    output, key = filesystem.absolute(options.output), make_archive_key(options)
    location = filesystem.absolute(options.input)
    return (
        pipeline
        | beam.Impulse()
        | "List"
        >> beam.FlatMap(
            lambda _: enumerate(find(location, exclude, recursive, output, key))
            # Beam would read the code of all that `find` calls to find this out.
        ).with_output_types(tuple[int, Source])
    )


def make_archive_key(options: Options) -> StudyKey | None:
    """Return what names the instances of a DICOM archive; None where their UIDs do."""
    return StudyKey(salt=options.id_salt) if options.dicomweb_names == "pseudonym" else None


def find(
    location: str,
    exclude: Sequence[str] = (),
    recursive: bool = True,
    output: str | None = None,
    key: StudyKey | None = _PUBLIC_KEY,
) -> Iterator[Source]:
    """Yield every input under `location`, once for each mention, in no order.

    Of a folder, these are all files at any depth but hidden ones (leading dot) and, of a local one,
    the results of runs in its subfolders. What cannot be read is yielded too, so that it ends as a
    rejection. Examples are a dangling link, a folder without permission, and a link that leads in a
    circle or to a folder that another link has led to.

    Args:
      location: folder, glob pattern (`**` for any depth), remote prefix, or manifest. A manifest is
        `.txt` with a path or URI on each line, or `.csv` with a column `path` (or `uri`, `file`,
        `image`) and optionally `study`; its further columns go into the rows. Relative paths start
        at the manifest's folder. The extension at the end of a pattern matches in either case.
      exclude: glob patterns of inputs to omit: those whose path relative to the root, or any name
        in it, matches, and all that lies in a folder that matches.
      recursive: whether subfolders of a folder are included.
      output: absolute URI of the folder whose results are not inputs, if a pattern or a link leads
        there.
      key: as of `make_archive_key`.

    Raises:
      ConfigError: the manifest names a result in `output`.
      DataError: the manifest cannot be read, or its columns are wrong.
      StorageError: there is no such bucket, no access, or no answer.
    """
    uri = filesystem.absolute(location)
    if dicomweb_address.is_address(uri):
        found = _find_in_archive(uri, key)
    elif manifest.is_manifest(uri):
        found = _find_listed(uri)
    elif filesystem.is_remote(uri):
        found = _find_remote(uri, recursive)
    else:
        found = _find_local(uri, recursive)
    is_result = output_folder.match_results(output) if output else lambda _: False
    for source in found:
        if _is_excluded(source.name, tuple(exclude)):
            continue
        if not is_result(source.uri):
            yield source
        elif manifest.is_manifest(uri):
            raise ConfigError(
                f"the manifest names {escape_reversibly(source.uri)}, a result in "
                f"--output={output}; choose another folder"
            )


def describe(location: str, key: StudyKey) -> str:
    """Return the absolute URI of an input, without identifiers where it is a DICOM archive.

    Raises:
      ConfigError: it is a malformed address.
    """
    uri = filesystem.absolute(location)
    return (
        dicomweb_address.describe(uri, key.pseudonym, is_secret=bool(key.salt))
        if dicomweb_address.is_address(uri)
        else uri
    )


def has_any(
    location: str, exclude: Sequence[str] = (), recursive: bool = True, output: str | None = None
) -> bool:
    """Return whether there is any input; listing stops at the first."""
    return next(find(location, exclude, recursive, output), None) is not None


def covers(location: str, folder: str) -> bool:
    """Return whether an input includes what lies in a folder, now or later.

    A file includes no folder; a manifest neither, as it lists its files one by one.
    """
    uri = filesystem.absolute(location)
    if manifest.is_manifest(uri) or _is_local_file(uri):
        return False
    if not is_pattern(uri) or "**" in uri:
        return filesystem.is_within(folder, find_root(uri))
    place = pathlib.PurePosixPath(folder)
    return any(above.match(_ignore_case(uri)) for above in (place, *place.parents))


def find_root(location: str) -> str:
    """Return the folder that names of inputs are relative to.

    That is the input itself, the folder of a file, or the part of a pattern before its wildcards.
    """
    uri = filesystem.absolute(location)
    if is_pattern(uri):
        return uri[: _MAGIC.search(uri).start()].rpartition("/")[0]  # type: ignore[union-attr]
    if manifest.is_manifest(uri) or _is_local_file(uri):
        return uri.rpartition("/")[0]
    return uri


def _is_local_file(uri: str) -> bool:
    # Unlike pathlib's, this is false too for a name that is too long.
    return not filesystem.is_remote(uri) and os.path.isfile(uri)  # noqa: PTH113


def is_pattern(uri: str) -> bool:
    """Return whether `uri` has wildcards and is not the name of a local file or folder."""
    if dicomweb_address.is_address(uri):
        return False
    return bool(_MAGIC.search(uri)) and (filesystem.is_remote(uri) or not os.path.lexists(uri))


def _make_source(uri: str, root: str, line: manifest.Line | None = None) -> Source:
    """Return an input, named after its path below `root`."""
    name = uri[len(root.rstrip("/")) + 1 :] if uri.startswith(root.rstrip("/") + "/") else uri
    if line is None:
        return Source(uri, name)
    return Source(uri, name, line.study, line.carried, is_grouped=False)


def _ignore_case(pattern: str) -> str:
    """Return a pattern whose extension matches in either case: `*.png` -> `*.[pP][nN][gG]`."""

    def both(match: re.Match) -> str:
        return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in match[0])

    return _EXTENSION.sub(both, pattern)


@functools.lru_cache
def _compile(exclude: tuple[str, ...]) -> Callable[[str], re.Match | None]:
    """Return a function that matches a name with any of the patterns."""
    return re.compile(
        "|".join(fnmatch.translate(_ignore_case(pattern)) for pattern in exclude)
    ).match


def _is_excluded(name: str, exclude: tuple[str, ...]) -> bool:
    """Return whether a part of the path, or the path up to one, matches a pattern."""
    if not exclude:
        return False
    matches, parts = _compile(exclude), name.split("/")
    return any(matches(part) for part in parts) or any(
        matches("/".join(parts[:end])) for end in range(2, len(parts) + 1)
    )


def _find_local(uri: str, recursive: bool) -> Iterator[Source]:
    """Yield the inputs of a local file, folder or pattern."""
    root = find_root(uri)
    pattern = uri[len(root.rstrip("/")) + 1 :] if is_pattern(uri) else ""
    is_result = output_folder.match_results_below(root)
    for path in _expand(root, pattern) if pattern else [uri] * os.path.lexists(uri):
        if not pathlib.Path(path).is_dir():
            if "**" not in pattern or not is_result(path):
                yield _make_source(path, root)
        # `**` matches a folder and the files in it, so walking the folder would repeat them.
        elif "**" not in pattern:
            for file in folder_walk.walk_files(path, recursive):
                if not is_result(file):
                    yield _make_source(file, root)


def _expand(root: str, pattern: str) -> Iterator[str]:
    """Yield the files and folders that match a pattern, without hidden ones."""
    # Unlike glob, pathlib does not follow links in `**`, which could lead it round in circles.
    matched = map(str, pathlib.Path(root or "/").glob(_ignore_case(pattern)))
    return (path for path in matched if not folder_walk.is_hidden(path[len(root) + 1 :]))


def _find_remote(uri: str, recursive: bool) -> Iterator[Source]:
    """Yield the inputs under a remote prefix or pattern."""
    root = find_root(uri)
    if is_pattern(uri):
        uri = _ignore_case(uri)
    elif filesystem.exists(uri):
        yield _make_source(uri, uri.rpartition("/")[0])
        return
    else:
        uri = filesystem.join(uri, "**" if recursive else "*")
    for path in filesystem.match(uri):
        # Storage browsers mark an empty folder by an object whose name ends in a slash.
        if not path.endswith("/") and not folder_walk.is_hidden(path[len(root) + 1 :]):
            yield _make_source(path, root)


def _find_in_archive(uri: str, key: StudyKey | None) -> Iterator[Source]:
    """Yield the instances of a DICOM archive, each in a folder of its study."""
    service = f"dicomweb+{dicomweb_address.parse(uri).service}"
    with storage_errors.translate_errors():
        for found in dicomweb.find(uri):
            if key is None:
                name = "/".join((found.study, found.series, found.uid))
                yield Source(found.address, name)
            else:
                name = f"{key.pseudonym(found.study)}/{key.pseudonym(found.uid)}"
                yield Source(f"{service}/{name}", name, address=found.address)


def _find_listed(uri: str) -> Iterator[Source]:
    """Yield the inputs that a manifest lists."""
    root = find_root(uri)
    has_mura = None
    for line in manifest.read_lines(uri):
        where = f"the manifest {uri} line {line.number}"
        if not line.is_mura:
            path = filesystem.absolute(manifest_text.resolve_path(line.path, root, where))
            yield _make_source(path, root, line)
            continue
        if has_mura is None:
            has_mura = mura_paths.ROOT in filesystem.names(root)
        path = filesystem.absolute(manifest_table.resolve_in_mura(line.path, root, has_mura, where))
        is_study = mura_paths.STUDY_PATH.search(path)
        images = [found.uri for found in find(path, recursive=False)] if is_study else []
        # A study without files stands for itself and becomes a rejection.
        for image in images or [path]:
            yield _make_source(image, root, line)
