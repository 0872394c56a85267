"""The exported model directory: write `model.json`, load it, and refuse what is damaged or foreign.

    artifact/
      saved_model.pb, variables/   serving_default(image: uint8 [B, size, size, 1])
                                   -> {probability, logit, cam}
      model.keras                  the Keras model, to continue training from
      model.json                   everything below
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
from collections.abc import Mapping
from typing import Any, cast

import pydantic
from typing_extensions import TypedDict

from trainer.errors import ConfigError, DataError
from trainer.files import regular_file
from trainer.model_json import fields as types
from trainer.model_json.scaling import Scaling

FORMAT_VERSION = 2
"""Format 1 has no `weights_digest`, and names a model by the bytes of its SavedModel."""
MODEL_JSON = "model.json"
KERAS_FILE = "model.keras"
MODEL_CARD = "MODEL_CARD.md"
HUB_CARD = "README.md"
"""The model card with the metadata that the Hugging Face Hub reads."""
INT8_NETWORK = "openvino/int8.xml"
ONNX_NETWORK = "onnx/model.onnx"
OUTPUTS = ("probability", "logit", "cam")
"""Names of what the network returns for a batch of images."""
FREE_METHOD = "grad_cam"
"""Method of the map that `serving_default` returns."""
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
_WEIGHT_FILES = ("saved_model.pb", "variables/")
_COMPUTING = ("backbone", "pooling", "head_widths", "members", "temperatures", "mirrored")
"""Keys of `architecture` that the network's answer depends on."""
_MAX_JSON = 64 << 20  # bytes


class ArtifactError(DataError):
    """The artifact is damaged, or this version cannot score with it; the message says why."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """Content of `model.json`; `trainer.model_json.fields` has the meaning of each field."""

    model_id: types.ModelId
    image_size: types.ImageSize
    preprocessing: types.Contract
    threshold: types.Threshold
    temperature: types.Temperature
    uncertain_band: types.UncertainBand
    cam: types.MainCam
    architecture: types.Built
    dataset: types.TrainingData
    metrics: types.Metrics
    versions: types.Versions
    created: types.Created
    files: types.Files
    weights_digest: types.WeightsDigest = None
    reference: types.Reference = dataclasses.field(default_factory=dict)
    engines: types.Engines = dataclasses.field(default_factory=dict)
    map_checks: types.MapChecks = dataclasses.field(default_factory=dict)
    intercept: types.Intercept = 0.0
    study_calibration: types.StudyCalibration = None
    calibration: types.Calibration = dataclasses.field(default_factory=dict)
    format_version: types.FormatVersion = FORMAT_VERSION

    @property
    def saved_model_id(self) -> str:
        """Id of the SavedModel's bytes, which differ between exports even of the same weights."""
        listed = sorted(_files_of_weights(self.files).items())
        return _short_digest("".join(f"{name}:{digest}\n" for name, digest in listed))

    @property
    def scaling(self) -> Scaling:
        """Return what turns the logit of an image into its calibrated probability."""
        return Scaling(self.temperature, self.intercept)

    @property
    def study_scaling(self) -> Scaling:
        """Return what turns the mean logit of a study's images into its probability."""
        return Scaling(**self.study_calibration) if self.study_calibration else self.scaling

    def label(self, probability: float) -> str:
        """Return the label of a calibrated probability in [0, 1].

        It is `positive` or `negative`, or `uncertain` inside the band, if there is one.
        """
        if self.uncertain_band and self.uncertain_band[0] <= probability < self.uncertain_band[1]:
            return "uncertain"
        return "positive" if probability >= self.threshold else "negative"

    def with_threshold(self, threshold: float | None) -> "Artifact":
        """Return the same with another threshold, in [0, 1]; for None, the artifact as it is.

        The uncertain band goes, because it was drawn around the artifact's own threshold.
        """
        return (
            self
            if threshold is None
            else dataclasses.replace(self, threshold=threshold, uncertain_band=None)
        )

    def with_map_method(self, method: str) -> "Artifact":
        """Return the same with `cam` describing the map of another method.

        Raises:
          ConfigError: the SavedModel has no signature of that method.
        """
        if method == FREE_METHOD:
            return self
        held = self.cam.get("methods", {})
        if method not in held:
            raise ConfigError(
                f"the artifact draws maps by {', '.join([FREE_METHOD, *held])}, not by {method}; "
                f"humerus-train with --config.cam_methods={method} exports it (on a finished "
                "--workdir once its metrics.json is removed)"
            )
        cam = cast(types.Cam, {**self.cam, **held[method]})
        return dataclasses.replace(self, cam=cam)

    def cautions(self) -> list[str]:
        """Return sentences to read before any probability or map of this model."""
        simulated = [
            "The model was trained on simulated radiographs and knows nothing of patients."
        ]
        failed = [
            f"The maps of this model fail the check `{name}`: {check['said']}."
            for name, check in self.map_checks.items()
            if check["passed"] is False
        ]
        return (simulated if self.dataset.get("simulated") else []) + failed


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
    files = _checksums(root)
    if not _files_of_weights(files):
        raise ArtifactError(f"{root} holds no SavedModel; export one there first")
    unnamed = Artifact(model_id="", files=files, weights_digest=weights_digest, **fields)
    return _write(root, dataclasses.replace(unnamed, model_id=_model_id(unnamed)))


def amend(directory: str | os.PathLike, sealed: Artifact, **fields: Any) -> Artifact:
    """Replace fields of a `sealed` artifact's `model.json`, list its files anew, and return it.

    Raises:
      ArtifactError: the weights are no longer those that were sealed.
    """
    root = pathlib.Path(directory)
    amended = dataclasses.replace(sealed, files=_checksums(root), **fields)
    if _files_of_weights(amended.files) != _files_of_weights(sealed.files):
        raise ArtifactError(
            f"{root}: its weights have changed since they were exported; export the model again"
        )
    return _write(root, amended)


def _checksums(root: pathlib.Path) -> dict[str, str]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    found = {path.relative_to(root).as_posix(): _sha256(path) for path in paths}
    return {name: digest for name, digest in found.items() if name != MODEL_JSON}


def _write(root: pathlib.Path, artifact: Artifact) -> Artifact:
    partial = root / (MODEL_JSON + ".partial")
    partial.write_text(
        json.dumps(dataclasses.asdict(artifact), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    partial.replace(root / MODEL_JSON)
    return artifact


def load(directory: str | os.PathLike) -> Artifact:
    """Read a local artifact and verify the checksum of each of its files.

    Raises:
      ConfigError: no artifact there.
      ArtifactError: a newer format, a missing or altered file.
    """
    root = pathlib.Path(directory)
    try:
        text = regular_file.read(str(root / MODEL_JSON), _MAX_JSON)
    except OSError as error:
        raise ConfigError(
            f"{root} is not an exported model: no {MODEL_JSON} there; "
            "name the `artifact` folder of a run"
        ) from error
    artifact = parse(text, source=str(root))
    for name, expected in artifact.files.items():
        path, inside = root / name, pathlib.PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not path.is_file():
            raise ArtifactError(
                f"{root} lacks its file {_escape(name)}; copy the whole artifact again"
            )
        if _sha256(path) != expected:
            raise ArtifactError(
                f"{root / _escape(name)} is not the file that was exported: "
                f"its checksum differs from {MODEL_JSON}; copy the artifact again"
            )
    return artifact


class _Version(TypedDict):
    format_version: types.FormatVersion


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
        raise ArtifactError(
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
    if not _files_of_weights(artifact.files) or artifact.model_id != _model_id(artifact):
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged (`model_id` is not that of the other fields); "
            "export the model again"
        )
    return artifact


_VERSION = pydantic.TypeAdapter(_Version)
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


def _files_of_weights(files: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.startswith(_WEIGHT_FILES)}


def _model_id(artifact: Artifact) -> str:
    """Return the id of what an artifact computes, whatever else it says of itself."""
    if artifact.weights_digest is None:
        return artifact.saved_model_id
    built = cast(Mapping[str, Any], artifact.architecture)
    computed = {
        "weights": artifact.weights_digest,
        "image_size": artifact.image_size,
        "preprocessing": artifact.preprocessing["version"],
        "temperature": float(artifact.temperature),
        "layer": artifact.cam["layer"],
        "methods": sorted(artifact.cam.get("methods", {})),
        **{key: built.get(key) for key in _COMPUTING},
    }
    if "networks" in built:  # only where the members differ
        computed["networks"] = built["networks"]
    if artifact.intercept:  # the ids of artifacts without one are older than it
        computed["intercept"] = float(artifact.intercept)
    return _short_digest(json.dumps(computed, sort_keys=True))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
