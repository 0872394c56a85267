"""Open an artifact wherever it lies, through a copy on this machine where it is remote."""

import atexit
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence

from trainer import artifact, hub, machine, storage
from trainer.artifact import MODEL_JSON, Artifact
from trainer.errors import ConfigError
from trainer.files.urls import is_remote


def open_artifact(model: str) -> tuple[pathlib.Path, Artifact]:
    """Return the local folder of an artifact and what its `model.json` says; all is verified.

    Args:
      model: the folder, local, in a bucket or on the Hub.

    Raises:
      ConfigError: there is no artifact.
      ArtifactError: the artifact is damaged.
      OSError: the storage or the Hub can't be read.
    """
    model = hub.fetch(model).rstrip("/")
    if not is_remote(model):
        return pathlib.Path(model), artifact.load(model)
    return keep_copy(model, _read_json(model), functools.partial(storage.download, model))


def keep_copy(
    model: str, content: bytes, download: Callable[[Sequence[str], pathlib.Path], None]
) -> tuple[pathlib.Path, Artifact]:
    """Return the local copy of a remote artifact, which later calls find again, and its content.

    Args:
      content: the bytes of its `model.json`.
      download: copies files, named by their paths below `model`, to a local folder.

    Raises:
      ArtifactError: the artifact or the copy is damaged.
    """
    described = artifact.parse(content, source=model)
    # Named after model.json too: the same weights may be verified again, on other images.
    name = f"{described.model_id}-{hashlib.sha256(content).hexdigest()[:8]}"
    copy = _open_cache() / name
    if not copy.is_dir():
        partial = pathlib.Path(tempfile.mkdtemp(dir=copy.parent, prefix=".partial-"))
        try:
            download(_list_files(model, artifact.list_needed(described)), partial)
            artifact.load(partial)
            # Another process may have made the same copy meanwhile.
            if not copy.is_dir():
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    try:
        return copy, artifact.load(copy)
    except artifact.ArtifactError:
        # The copy was damaged later; without it, the next attempt makes a new one.
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _open_cache() -> pathlib.Path:
    """Return the folder of all copies; where none can be made, one until this process ends."""
    folder = machine.cache_folder() / "artifacts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _make_temporary_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _make_temporary_folder()


@functools.cache
def _make_temporary_folder() -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix="humerus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def download_all(model: str, folder: pathlib.Path) -> Artifact:
    """Copy a remote artifact with its cards to a local folder, and return its content."""
    described = artifact.parse(_read_json(model), source=model)
    names = _list_files(model, described.files)
    present = [name for name in names if storage.exists(f"{model}/{name}")]
    storage.download(model, present, folder)
    return described


def _read_json(model: str) -> bytes:
    content = storage.read_bytes(f"{model}/{MODEL_JSON}")
    if content is None:
        raise ConfigError(
            f"{model} is not an exported model: it has no {MODEL_JSON}; name the `artifact` folder"
            " of a run"
        )
    return content


def _list_files(model: str, listed: Collection[str]) -> list[str]:
    """Return the paths of the files to copy, after a check that all lie in the artifact."""
    for name in map(pathlib.PurePosixPath, listed):
        if name.is_absolute() or ".." in name.parts:
            raise artifact.ArtifactError(
                f"{model} names a file outside its folder: {name}; export the model again"
            )
    return [*listed, MODEL_JSON]
