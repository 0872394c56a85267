"""Read, write, list and delete files by URI, local or remote; a write is atomic."""

import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from batch_inference.storage import dicomweb, dicomweb_address, gcs, storage_errors
from batch_inference.storage.storage_errors import TooLargeError, translate_errors
from trainer.files import atomic_file, manifest_text, regular_file
from trainer.files.urls import absolute as absolute  # part of this module for its users
from trainer.radiograph import MAX_BYTES

_MAX_TEXT_BYTES = 1 << 36
"""Largest local list of files: hundreds of millions of lines."""


def is_remote(uri: str) -> bool:
    """Return whether `uri` names something outside the local file system, as `gs://bucket/file`."""
    return "://" in uri and not uri.startswith("file://")


def resolve_links(uri: str) -> str:
    """Return a local path with all links followed, or a remote URI unchanged."""
    return uri if is_remote(uri) else os.path.realpath(uri)


def is_within(inner: str, outer: str) -> bool:
    """Return whether `inner` is `outer` or lies in it at any depth, with all links followed."""
    return join(resolve_links(inner), "").startswith(join(resolve_links(outer), ""))


def join(root: str, name: str) -> str:
    """Return the path of `name`, a relative path with `/` between its parts, below `root`."""
    return f"{root.rstrip('/')}/{name}"


def read(uri: str) -> bytes:
    """Return the content of a regular file.

    Raises:
      TooLargeError: it has more than `MAX_BYTES`.
      StorageError: it cannot be read.
    """
    with translate_errors():
        contents = _read_remote(uri) if is_remote(uri) else regular_file.read(uri, MAX_BYTES)
    if len(contents) > MAX_BYTES:
        raise TooLargeError(f"expected at most {MAX_BYTES} bytes, the file has more")
    return contents


def _read_remote(uri: str) -> bytes:
    if uri.startswith(gcs.SCHEME):
        return gcs.read(uri, MAX_BYTES)
    if dicomweb_address.is_address(uri):
        return dicomweb.read(uri, MAX_BYTES)
    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read(MAX_BYTES + 1)


def open_text(uri: str) -> TextIO:
    """Open a text file of any length to iterate over by lines, as `manifest_text.open_text` does.

    Raises:
      StorageError: it cannot be opened.
    """
    with translate_errors():
        file = (
            FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED)
            if is_remote(uri)
            else cast(BinaryIO, regular_file.open_file(uri, _MAX_TEXT_BYTES))
        )
    return manifest_text.open_text(file)


def write(uri: str, contents: bytes, mime_type: str = "application/octet-stream") -> None:
    """Write a file and its folders; a reader sees the former content or the new one, never a part.

    Raises:
      UnwritableError: no other file could be written there either.
      StorageError: this file could not be written; no part of it is left.
    """
    try:
        if uri.startswith(gcs.SCHEME):
            gcs.write(uri, contents, mime_type)
        elif is_remote(uri):
            with FileSystems.create(uri, mime_type, CompressionTypes.UNCOMPRESSED) as file:
                file.write(contents)
        else:
            atomic_file.write(uri, contents)
    except Exception as error:
        raise storage_errors.translate_write_error(error) from error


def exists(uri: str) -> bool:
    """Return whether there is a file (or a local folder) under this URI.

    Raises:
      StorageError: no bucket of that name, no access, no answer.
    """
    if not is_remote(uri):
        return os.path.lexists(uri)
    with translate_errors():
        return gcs.exists(uri) if uri.startswith(gcs.SCHEME) else FileSystems.exists(uri)


def match(pattern: str) -> Iterator[str]:
    """Yield the remote files that match a glob pattern; `**` matches folders of any depth.

    Beam's own `match` would hold all of them in memory.

    Raises:
      StorageError: as `exists`.
    """
    with translate_errors():
        filesystem = FileSystems.get_filesystem(pattern)
        prefix = re.match(r"[^[*?]*", pattern)[0]  # type: ignore[index]
        listed = _list_remote(prefix.rpartition("/")[0] + "/" if filesystem.has_dirs() else prefix)
        yield from (entry.path for entry in filesystem.match_files(listed, pattern))


def names(folder: str) -> list[str]:
    """Return the names in a folder, without unfinished files; nothing if there is not a folder.

    Raises:
      StorageError: as `exists`.
    """
    with translate_errors():
        if folder.startswith(gcs.SCHEME):
            return gcs.names(folder)
        if not is_remote(folder):
            path = pathlib.Path(folder)
            return (
                sorted(
                    entry.name for entry in path.iterdir() if not atomic_file.is_partial(entry.name)
                )
                if path.is_dir()
                else []
            )
    try:
        # Beam's own `match` omits the folders of storage that has none, such as `s3://`.
        below = [entry.path[len(folder) + 1 :] for entry in _list_remote(join(folder, ""))]
    except BeamIOError:
        return []
    return sorted({path.split("/")[0] for path in below} - {""})


def files(folder: str) -> Iterator[str]:
    """Yield the relative paths of all files below a folder; nothing if there is not a folder.

    Raises:
      StorageError: as `exists`.
    """
    with translate_errors():
        if is_remote(folder):
            found = (entry.path for entry in _list_remote(join(folder, "")))
        else:
            found = (join(place, name) for place, _, names in os.walk(folder) for name in names)
        yield from (path[len(folder) + 1 :] for path in found)


def _list_remote(prefix: str) -> Any:
    """Yield the files below a prefix one by one; no public function of Beam does."""
    return FileSystems.get_filesystem(prefix)._list(prefix)


def delete(uri: str) -> None:
    """Delete a file, or a folder with all its files.

    Raises:
      StorageError: it is still there.
    """
    with translate_errors():
        if uri.startswith(gcs.SCHEME):
            gcs.delete(uri)
        elif is_remote(uri):
            matched = FileSystems.match([uri, join(uri, "**")])
            FileSystems.delete([entry.path for result in matched for entry in result.metadata_list])
        elif pathlib.Path(uri).is_dir() and not pathlib.Path(uri).is_symlink():
            shutil.rmtree(uri)
        else:
            pathlib.Path(uri).unlink(missing_ok=True)


def delete_file(uri: str) -> None:
    """Delete a file, if it is there; of an object in a bucket, in one request.

    Raises:
      StorageError: it is still there.
    """
    if uri.startswith(gcs.SCHEME):
        with translate_errors():
            gcs.delete_object(uri)
    else:
        delete(uri)


def remove_partial_files(folder: str) -> None:
    """Delete the unfinished files of killed writers. Nothing else may write there meanwhile."""
    if not is_remote(folder):
        for path in pathlib.Path(folder).rglob(".*"):
            if atomic_file.is_partial(path.name):
                path.unlink(missing_ok=True)
