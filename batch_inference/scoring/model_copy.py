"""Copies the artifact of a run to this machine where it is remote, and keeps the copy."""

import hashlib
import pathlib
import shutil
import tempfile

from batch_inference.storage import filesystem, storage_errors
from trainer import artifact, machine
from trainer.errors import ConfigError


def fetch(uri: str) -> tuple[pathlib.Path, artifact.Artifact]:
    """Return the folder of a local copy of an artifact, and its description.

    A local artifact is its own copy.

    Raises:
      ConfigError: there is no artifact, or no access.
      OutageError: the storage does not answer.
      ArtifactError: the artifact is damaged.
    """
    uri = filesystem.absolute(uri)
    if not filesystem.is_remote(uri):
        return pathlib.Path(uri), artifact.load(uri)
    with storage_errors.explain_failure(
        ConfigError,
        f"{uri} cannot be copied here",
        "name the `artifact` folder of a run, and check access",
    ):
        contents = filesystem.read(filesystem.join(uri, artifact.MODEL_JSON))
        described = artifact.parse(contents, source=uri)
        # Named after model.json too: the same weights may be verified again, on other images.
        copy = (
            machine.cache_folder()
            / "artifacts"
            / f"{described.model_id}-{hashlib.sha256(contents).hexdigest()[:8]}"
        )
        if not copy.is_dir():
            _copy(uri, described, copy)
    try:
        return copy, artifact.load(copy)
    except artifact.ArtifactError:
        # The copy was damaged later; without it, the next attempt makes a new one.
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _copy(uri: str, described: artifact.Artifact, copy: pathlib.Path) -> None:
    """Copy an artifact into the folder `copy`, completely or not at all."""
    with storage_errors.translate_errors():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(dir=copy.parent, prefix=".partial-"))
        try:
            for name in [*artifact.list_needed(described), artifact.MODEL_JSON]:
                if (
                    ".." in pathlib.PurePosixPath(name).parts
                    or pathlib.PurePosixPath(name).is_absolute()
                ):
                    raise artifact.ArtifactError(
                        f"{uri} names a file outside its folder: {name}; export the model again"
                    )
                filesystem.write(str(partial / name), filesystem.read(filesystem.join(uri, name)))
            artifact.load(partial)
            # Another process may have made the same copy meanwhile.
            if not copy.is_dir():
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
