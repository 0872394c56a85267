"""The exported model directory: write `model.json`, load it, and refuse what is damaged or foreign.

    artifact/
      saved_model.pb, variables/   serving_default(image: uint8 [B, size, size, 1]) -> {probability, logit, cam}
      model.keras                  the Keras model, to go on training from
      model.json                   everything below
      MODEL_CARD.md                the same for people
      openvino/int8.xml, .bin      the network in 8-bit arithmetic, where `trainer.publishing.verify` made one; no part of the model's id

A leaf: standard library only, so that a scorer needs neither TensorFlow nor Keras to know what a model expects.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import ConfigError, DataError

FORMAT_VERSION = 1
MODEL_JSON = "model.json"
KERAS_FILE = "model.keras"
MODEL_CARD = "MODEL_CARD.md"
INT8_NETWORK = "openvino/int8.xml"
FREE_METHOD = "grad_cam"
"""Whose map `serving_default` gives."""
_WEIGHT_FILES = ("saved_model.pb", "variables/")
_LARGEST_IMAGE = 8192
"""Side in pixels, far beyond any: a guard against a damaged number that would ask for all memory there is."""


class ArtifactError(DataError):
    """The artifact is damaged, or not one that this version can score with; the message says why."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What `model.json` says of a model.

    Attributes:
      model_id: names the weights: the start of a SHA-256 over the SavedModel's files.
      image_size: side in pixels of the square that the model takes, uint8 [B, image_size, image_size, 1].
      preprocessing: the contract of `radiograph.PREPROCESSING` that the training pixels were made under.
      threshold: calibrated probability at and above which an image is called positive, in (0, 1).
      temperature: divisor of the logit; already applied to the SavedModel's `probability`, kept for the record.
      uncertain_band: calibrated probabilities [low, high) that are called `uncertain`; None when the band is off.
      cam: `layer`, `height`, `width` of the map, and `scale`: the absolute value drawn at full colour (logits per cell);
        `methods`: the same of every further signature of the SavedModel, by its name.
      architecture: backbone, pooling, head widths and the like.
      dataset: name, fingerprint, and counts per split of the training data.
      metrics: as in `metrics.json`, by split, each with its interval.
      reference: histograms kept from training, against which a scored folder's drift is measured.
      engines: by engine and precision, as `openvino/int8`, what `trainer.publishing.verify` measured: agreement with float32 TensorFlow and speed.
      map_checks: by name, whether a check that the maps mean something `passed` (None: not measured) and what was `said`.
      versions: of the libraries that made it.
      created: ISO 8601 UTC.
      files: SHA-256 of every other file, by path relative to the directory.
    """

    model_id: str
    image_size: int
    preprocessing: Mapping[str, Any]
    threshold: float
    temperature: float
    uncertain_band: tuple[float, float] | None
    cam: Mapping[str, Any]
    architecture: Mapping[str, Any]
    dataset: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str
    reference: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    engines: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    map_checks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def label(self, probability: float) -> str:
        """`positive`, `negative`, or `uncertain` where the band is on, for a calibrated probability in [0, 1]."""
        if self.uncertain_band and self.uncertain_band[0] <= probability < self.uncertain_band[1]:
            return "uncertain"
        return "positive" if probability >= self.threshold else "negative"

    def called_at(self, threshold: float | None) -> "Artifact":
        """The same with a threshold of one's own, in [0, 1], and no uncertain band, which was drawn around the artifact's; None: as is."""
        return (
            self
            if threshold is None
            else dataclasses.replace(self, threshold=threshold, uncertain_band=None)
        )

    def drawn_by(self, method: str) -> "Artifact":
        """The same with `cam` saying what another method's map is like.

        Raises:
          ConfigError: the SavedModel holds none of it.
        """
        if method == FREE_METHOD:
            return self
        held = self.cam.get("methods", {})
        if method not in held:
            raise ConfigError(
                f"the artifact draws maps by {', '.join([FREE_METHOD, *held])}, not by {method}; "
                f"humerus-train with --config.cam_methods={method} exports it (on a finished --workdir once its metrics.json is removed)"
            )
        return dataclasses.replace(self, cam={**self.cam, **held[method]})

    def cautions(self) -> list[str]:
        """Sentences that must be read before any probability or map of this model is."""
        simulated = [
            "The model was trained on simulated radiographs and knows nothing of patients."
        ]
        failed = [
            f"The maps of this model fail the check `{name}`: {check['said']}."
            for name, check in self.map_checks.items()
            if check["passed"] is False
        ]
        return (simulated if self.dataset.get("simulated") else []) + failed


def seal(directory: str | os.PathLike, **fields: Any) -> Artifact:
    """Names the model, writes `model.json` beside the files already in `directory`, and returns what it says.

    Args:
      directory: local directory that holds the SavedModel and whatever else belongs to the artifact.
      **fields: every field of `Artifact` but `model_id`, `files` and `format_version`.
    """
    root = pathlib.Path(directory)
    files = _checksums(root)
    if _has_no_weights(files):
        raise ArtifactError(f"{root} holds no SavedModel; export one there first")
    return _write(root, Artifact(model_id=_model_id(files), files=files, **fields))


def amend(directory: str | os.PathLike, sealed: Artifact, **fields: Any) -> Artifact:
    """Replaces fields of a `sealed` artifact's `model.json`, takes in files that were added, and returns what it says then.

    Raises:
      ArtifactError: the weights are no longer those that were sealed.
    """
    root = pathlib.Path(directory)
    amended = dataclasses.replace(sealed, files=_checksums(root), **fields)
    if _model_id(amended.files) != sealed.model_id:
        raise ArtifactError(
            f"{root}: its weights have changed since they were exported; export the model again"
        )
    return _write(root, amended)


def _checksums(root: pathlib.Path) -> dict[str, str]:
    return {name: _sha256(root / name) for name in _relative_files(root) if name != MODEL_JSON}


def _write(root: pathlib.Path, artifact: Artifact) -> Artifact:
    partial = root / (MODEL_JSON + ".partial")
    partial.write_text(
        json.dumps(dataclasses.asdict(artifact), indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    partial.replace(root / MODEL_JSON)
    return artifact


def load(directory: str | os.PathLike) -> Artifact:
    """Reads a local artifact and verifies the checksum of each of its files.

    Raises:
      ConfigError: no artifact there.
      ArtifactError: a newer format, a missing or altered file.
    """
    root = pathlib.Path(directory)
    try:
        text = (root / MODEL_JSON).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{root} is not an exported model: no {MODEL_JSON} there; name the `artifact` folder of a run"
        ) from error
    artifact = parse(text, source=str(root))
    for name, expected in artifact.files.items():
        path, inside = root / name, pathlib.PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not path.is_file():
            raise ArtifactError(f"{root} lacks its file {name}; copy the artifact again, whole")
        if _sha256(path) != expected:
            raise ArtifactError(
                f"{path} is not the file that was exported: its checksum differs from {MODEL_JSON}; copy the artifact again"
            )
    return artifact


def parse(text: str | bytes, source: str = MODEL_JSON) -> Artifact:
    """`model.json` as an `Artifact`; `source` names it in errors.

    Raises:
      ArtifactError: not JSON, not ours, of a newer format, or with a field that no export wrote.
    """
    try:
        fields = json.loads(text)
        version = int(fields["format_version"])
    except (
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:  # the last for JSON's Infinity
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged or not of this program; export the model again"
        ) from error
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{source}: artifact format {version}, this program reads up to {FORMAT_VERSION}; upgrade humerus"
        )
    known = {field.name for field in dataclasses.fields(Artifact)}
    try:
        fields = {name: value for name, value in fields.items() if name in known}
        fields["uncertain_band"] = (
            tuple(fields["uncertain_band"]) if fields["uncertain_band"] else None
        )
        artifact = Artifact(**fields)
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{source}: {MODEL_JSON} lacks a field ({error}); export the model again"
        ) from error
    wrong = _implausible(artifact)
    if wrong:
        raise ArtifactError(
            f"{source}: {MODEL_JSON} is damaged ({wrong} cannot be what was exported); export the model again"
        )
    return artifact


def _implausible(artifact: Artifact) -> str | None:
    """Name of the first field that no export wrote. Numbers and names are used as they come: in memory, in paths, in labels."""

    def in_unit_interval(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value <= 1

    mappings = (
        "preprocessing",
        "cam",
        "architecture",
        "dataset",
        "metrics",
        "versions",
        "reference",
        "engines",
        "map_checks",
        "files",
    )
    plausible = {name: isinstance(getattr(artifact, name), dict) for name in mappings} | {
        "image_size": type(artifact.image_size) is int
        and 0 < artifact.image_size <= _LARGEST_IMAGE,
        "threshold": in_unit_interval(artifact.threshold),
        "temperature": type(artifact.temperature) in (int, float)
        and 0 < artifact.temperature < math.inf,
        "uncertain_band": not artifact.uncertain_band
        or (
            len(artifact.uncertain_band) == 2
            and all(map(in_unit_interval, artifact.uncertain_band))
        ),
        "created": isinstance(artifact.created, str),
    }
    wrong = [name for name, good in plausible.items() if not good]
    if not wrong and not all(isinstance(digest, str) for digest in artifact.files.values()):
        wrong = ["files"]
    if not wrong and not all(_is_engine_record(record) for record in artifact.engines.values()):
        wrong = ["engines"]
    if not wrong and (
        _has_no_weights(artifact.files) or artifact.model_id != _model_id(artifact.files)
    ):
        # Files are looked up, and copies kept, under the model's name: it must be the one that its weights give it.
        wrong = ["model_id"]
    return wrong[0] if wrong else None


def _is_engine_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(
        record.get("images_per_second", 0.0), int | float
    )


def _has_no_weights(files: Mapping[str, str]) -> bool:
    return not any(name.startswith(_WEIGHT_FILES) for name in files)


def _model_id(files: Mapping[str, str]) -> str:
    weights = "".join(
        f"{name}:{digest}\n"
        for name, digest in sorted(files.items())
        if name.startswith(_WEIGHT_FILES)
    )
    return hashlib.sha256(weights.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _relative_files(root: pathlib.Path) -> Iterator[str]:
    yield from sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
    )


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
