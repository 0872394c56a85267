"""Copies the artifact of a run to this machine where it is remote, and keeps the copy."""

import pathlib
from collections.abc import Sequence

from batch_inference.storage import filesystem, storage_errors
from trainer import artifact
from trainer.errors import ConfigError
from trainer.inference import artifact_copy


def fetch(uri: str) -> tuple[pathlib.Path, artifact.Artifact]:
    """Return the folder of a local copy of an artifact, and its description.

    A local artifact is its own copy.

    Raises:
      ConfigError: there is no artifact, or no access.
      StorageOutageError: the storage does not answer.
      ArtifactError: the artifact is damaged.
    """
    uri = filesystem.absolute(uri)
    if not filesystem.is_remote(uri):
        return pathlib.Path(uri), artifact.load(uri)

    def download(names: Sequence[str], folder: pathlib.Path) -> None:
        for name in names:
            filesystem.write(str(folder / name), filesystem.read(filesystem.join(uri, name)))

    with (
        storage_errors.explain_failure(
            ConfigError,
            f"{uri} cannot be copied here",
            "name the `artifact` folder of a run, and check access",
        ),
        storage_errors.translate_errors(),
    ):
        content = filesystem.read(filesystem.join(uri, artifact.MODEL_JSON))
        return artifact_copy.keep_copy(uri, content, download)
