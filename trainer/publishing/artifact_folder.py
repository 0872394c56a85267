"""Tell what lies in a folder that an artifact is exported to: an artifact, part of one, or more."""

import re

from trainer import artifact, storage
from trainer.errors import ConfigError

_OWN_NAMES = re.compile(r"MODEL_CARD\.md|model(-\d+)?\.keras")
_SHARED_NAMES = {
    "README.md", "saved_model.pb", "fingerprint.pb", "variables", "assets", "openvino", "onnx",
}  # fmt: skip
"""Names in an artifact that other programs write too, for example those of a SavedModel."""


def check_replaceable(directory: str) -> None:
    """Check that an export to a folder deletes no other files.

    The folder must be empty, or hold an artifact. The `model.json` of an artifact may be missing,
    as in a bucket after an upload that was killed.

    Raises:
      ConfigError: it holds other files, which would be lost.
    """
    names = [name.rstrip("/") for name in storage.list_folder(directory)]
    own = [name for name in names if _OWN_NAMES.fullmatch(name)]
    others = sorted({*names} - {*own} - _SHARED_NAMES)
    is_unfinished = own and not others
    if names and artifact.MODEL_JSON not in names and not is_unfinished:
        raise ConfigError(
            f"{directory} holds {[*others, *names][0]}, but no {artifact.MODEL_JSON}; all that is"
            " in it would be deleted: move it away, or name a new folder"
        )


def is_complete(model: str) -> bool:
    """Return whether a folder, local or in a bucket, holds an artifact with all of its files.

    Its `model.json` is checked; checksums are left to `artifact.load`.

    Raises:
      NewerFormatError: a newer version wrote it, so this program can't tell.
      OSError: the files can't be read.
    """
    text = storage.read_bytes(f"{model}/{artifact.MODEL_JSON}")
    if text is None:
        return False
    try:
        described = artifact.parse(text, source=model)
    except artifact.NewerFormatError:
        raise
    except artifact.ArtifactError:
        return False
    return all(storage.exists(f"{model}/{name}") for name in artifact.list_needed(described))
