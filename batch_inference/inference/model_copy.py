"""The artifact that a run scores with, as a folder of this machine: one that lies in a bucket is copied once, and kept."""

import hashlib
import os
import pathlib
import shutil
import tempfile

from batch_inference.storage import filesystem
from trainer import artifact
from trainer.errors import ConfigError


def cache_folder() -> pathlib.Path:
    """Where copies of remote artifacts and converted networks are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(base) / "humerus"


def fetch(uri: str) -> tuple[pathlib.Path, artifact.Artifact]:
    """A verified local copy of an artifact (the artifact itself where it is local), and what it says of itself.

    Raises:
      ConfigError: no artifact there, or no access.
      OutageError: the storage does not answer.
      ArtifactError: damaged.
    """
    uri = filesystem.absolute(uri)
    if not filesystem.is_remote(uri):
        return pathlib.Path(uri), artifact.load(uri)
    with filesystem.refusing(
        ConfigError,
        f"{uri} cannot be copied here",
        "name the `artifact` folder of a run, and check access",
    ):
        contents = filesystem.read(filesystem.join(uri, artifact.MODEL_JSON))
        described = artifact.parse(contents, source=uri)
        # The same weights may have been verified since, or on other images.
        copy = (
            cache_folder()
            / "artifacts"
            / f"{described.model_id}-{hashlib.sha256(contents).hexdigest()[:8]}"
        )
        if not copy.is_dir():
            _copy(uri, described, copy)
    try:
        return copy, artifact.load(copy)
    except artifact.ArtifactError:
        # A copy damaged since; the next attempt starts from nothing.
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _copy(uri: str, described: artifact.Artifact, copy: pathlib.Path) -> None:
    with filesystem.told():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(dir=copy.parent, prefix=".partial-"))
        try:
            for name in [*described.files, artifact.MODEL_JSON]:
                if (
                    ".." in pathlib.PurePosixPath(name).parts
                    or pathlib.PurePosixPath(name).is_absolute()
                ):
                    raise artifact.ArtifactError(
                        f"{uri} names a file outside of itself: {name}; export the model again"
                    )
                filesystem.write(str(partial / name), filesystem.read(filesystem.join(uri, name)))
            artifact.load(partial)
            # Another process may have made the same copy meanwhile: either is good.
            if not copy.is_dir():
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
