"""The exported model directory: write `model.json`, load it, and refuse what is damaged or foreign.

    artifact/
      saved_model.pb, variables/   serving_default(image: uint8 [B, size, size, 1])
                                   -> {probability, logit, cam}
      model.keras                  the Keras model, to continue training from
      model.json                   what `trainer.model_json.description` describes
      MODEL_CARD.md, README.md     the same for people, and for the Hugging Face Hub
      openvino/int8.xml, .bin      the network in 8-bit arithmetic, if `trainer.publishing.verify`
                                   made one; the model's id does not depend on it
      onnx/model.onnx              the network in ONNX, likewise

This module needs neither TensorFlow nor Keras, so that a scorer can read what a model expects.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import pydantic

from trainer.errors import ConfigError, DataError
from trainer.files import atomic_file, regular_file
from trainer.model_json.description import FORMAT_VERSION, Artifact
from trainer.model_json.description import ONE_PASS_METHOD as ONE_PASS_METHOD
from trainer.model_json.fields import Version

MODEL_JSON = "model.json"
KERAS_FILE = "model.keras"
MODEL_CARD = "MODEL_CARD.md"
HUB_CARD = "README.md"
"""The model card with the metadata that the Hugging Face Hub reads."""
_CARDS = {MODEL_CARD, HUB_CARD}
"""Files for people, who may edit or delete them, as on the Hub."""
INT8_NETWORK = "openvino/int8.xml"
ONNX_NETWORK = "onnx/model.onnx"
OUTPUTS = ("probability", "logit", "cam")
"""Names of what the network returns for a batch of images."""
METHOD_TITLES = {
    "grad_cam": "Grad-CAM",
    "hires_cam": "HiResCAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "fused_layer_cam": "LayerCAM, fused over the block ends",
    "refined_cam": "Grad-CAM, refined by the features of the block before",
    "score_cam": "Score-CAM",
    "occlusion": "Occlusion",
}
"""Titles of the methods that `network.saliency.METHODS` implements."""
_MAX_JSON = 64 << 20  # bytes


class ArtifactError(DataError):
    """The artifact is damaged, or this version cannot score with it; the message says why."""


class NewerFormatError(ArtifactError):
    """A newer version wrote the artifact."""


def list_keras_files(members: int) -> list[str]:
    """Return `model.keras` for one network; `model-1.keras` and so on for several."""
    stem, suffix = KERAS_FILE.split(".")
    return [KERAS_FILE] if members == 1 else [f"{stem}-{i + 1}.{suffix}" for i in range(members)]


def seal(directory: str | os.PathLike, *, weights_digest: str, **fields: Any) -> Artifact:
    """Name the model, write `model.json` beside the files in `directory`, and return its content.

    Args:
      directory: local directory that holds the SavedModel and everything else of the artifact.
      weights_digest: SHA-256 over the values of the network's weights, in hexadecimal.
      **fields: the other fields of `Artifact` but `model_id`, `files` and `format_version`.
    """
    root = pathlib.Path(directory)
    unnamed = Artifact(model_id="", files=_checksums(root), weights_digest=weights_digest, **fields)
    if not unnamed.weight_files:
        raise ArtifactError(f"{root} holds no SavedModel; export one there first")
    return _write(root, dataclasses.replace(unnamed, model_id=unnamed.compute_id()))


def amend(directory: str | os.PathLike, sealed: Artifact, **fields: Any) -> Artifact:
    """Replace fields of a `sealed` artifact's `model.json`, list its files anew, and return it.

    Raises:
      ArtifactError: the weights are no longer those that were sealed.
    """
    root = pathlib.Path(directory)
    files = {name: digest for name, digest in _checksums(root).items() if name not in _CARDS}
    # Cards stay listed as they were written, so that an edited one is known by its checksum.
    files |= {name: digest for name, digest in sealed.files.items() if name in _CARDS}
    amended = dataclasses.replace(sealed, files=files, **fields)
    if amended.weight_files != sealed.weight_files:
        raise ArtifactError(
            f"{root}: its weights have changed since they were exported; export the model again"
        )
    return _write(root, amended)


def replace_files(directory: str | os.PathLike, sealed: Artifact, made: pathlib.Path) -> Artifact:
    """Move all files below `made` into a `sealed` artifact, list them, and return it.

    They are moved while `model.json` doesn't list them, so that a stop leaves an artifact without
    them, never a damaged one.
    """
    root = pathlib.Path(directory)
    names = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    former = {name.as_posix() for name in names}
    kept = {name: digest for name, digest in sealed.files.items() if name not in former}
    withdrawn = _write(root, dataclasses.replace(sealed, files=kept))
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (made / name).replace(root / name)
    return amend(root, withdrawn)


def _checksums(root: pathlib.Path) -> dict[str, str]:
    """Return the checksum of each file but `model.json` and hidden ones, as unfinished ones are."""
    found = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): _sha256(path)
        for name, path in found.items()
        if str(name) != MODEL_JSON and not any(part.startswith(".") for part in name.parts)
    }


def _write(root: pathlib.Path, artifact: Artifact) -> Artifact:
    text = json.dumps(dataclasses.asdict(artifact), indent=2, sort_keys=True) + "\n"
    atomic_file.write(str(root / MODEL_JSON), text.encode())
    return artifact


def load(directory: str | os.PathLike) -> Artifact:
    """Read a local artifact and verify the checksum of each of its files but the model cards.

    Raises:
      ConfigError: no artifact there, or one that cannot be read.
      ArtifactError: a newer format, a missing or altered file.
    """
    root = pathlib.Path(directory)
    try:
        text = regular_file.read(str(root / MODEL_JSON), _MAX_JSON)
    except OSError as error:
        raise ConfigError(
            f"{root} is not an exported model: its {MODEL_JSON} cannot be read "
            f"({error.strerror or error}); name the `artifact` folder of a run"
        ) from error
    artifact = parse(text, source=str(root))
    for name, expected in list_needed(artifact).items():
        path, inside = root / name, pathlib.PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not path.is_file():
            raise ArtifactError(
                f"{root} lacks its file {_escape(name)}; copy the whole artifact again"
            )
        try:
            found = _sha256(path)
        except OSError as error:
            raise ConfigError(
                f"{root / _escape(name)} cannot be read ({error.strerror or error}); check access"
            ) from error
        if found != expected:
            raise ArtifactError(
                f"{root / _escape(name)} is not the file that was exported: "
                f"its checksum differs from {MODEL_JSON}; copy the artifact again"
            )
    return artifact


def list_needed(artifact: Artifact) -> dict[str, str]:
    """Return the checksums of the files that an artifact needs unaltered, by path."""
    return {name: digest for name, digest in artifact.files.items() if name not in _CARDS}


def parse(text: str | bytes, source: str = MODEL_JSON) -> Artifact:
    """Return the content of a `model.json`; errors name it as `source`.

    Raises:
      ArtifactError: not JSON, of another program or a newer format, or a field is missing, of
        another type or out of its range.
    """
    try:
        version = _VERSION.validate_json(text, strict=True)["format_version"]
    except pydantic.ValidationError as error:
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged or was not written by this program "
            f"({_describe(error)}); export the model again"
        ) from error
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{source}: artifact format {version}, this program reads up to {FORMAT_VERSION}; "
            "upgrade humerus"
        )
    try:
        artifact = _ARTIFACT.validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged ({_describe(error)}); export the model again"
        ) from error
    # Files are looked up, and copies kept, under the model's id: it must be the true one.
    if not artifact.weight_files or artifact.model_id != artifact.compute_id():
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged (`model_id` is not that of the other fields); "
            "export the model again"
        )
    return artifact


_VERSION = pydantic.TypeAdapter(Version)
_ARTIFACT = pydantic.TypeAdapter(Artifact)


def schema() -> dict[str, Any]:
    """Return the JSON schema of `model.json`."""
    return _ARTIFACT.json_schema()


def _describe(error: pydantic.ValidationError) -> str:
    """Return the first of the errors in words: which field, what is wrong, what came."""
    first = error.errors(include_url=False)[0]
    field = ".".join(_escape(str(part)) for part in first["loc"])
    if first["type"] == "missing":
        return f"`{field}` is missing"
    wrong = first["msg"].removeprefix("Value error, ")
    wrong = f"{wrong[0].lower()}{wrong[1:]}"
    if not field:
        return wrong
    return f"`{field}`: {wrong}, got {_escape(repr(first['input']))}"


def _escape(text: str) -> str:
    """Return text of a file in printable ASCII, at most 80 characters of it."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= 80 else f"{escaped[:77]}..."


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
