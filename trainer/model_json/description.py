"""The content of `model.json`: the type, range and meaning of each field, and what follows from it.

`trainer.model_json.fields` has the objects that some fields hold. pydantic checks a file against
both, and `python docs/model_json.py` writes the table of docs/artifact.md from them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field

from trainer.errors import ConfigError
from trainer.model_json.fields import (
    Architecture,
    CalibrationRecord,
    Cam,
    Dataset,
    Digest,
    EngineRecord,
    FormatVersion,
    Histogram,
    MapCheck,
    Name,
    Positive,
    Preprocessing,
    Probability,
    Side,
    StudyLine,
    check_band,
    check_bins,
    check_time,
)
from trainer.model_json.scaling import Scaling

FORMAT_VERSION = 2
"""Format 1 has no `weights_digest`, and names a model by the bytes of its SavedModel."""
ONE_PASS_METHOD = "grad_cam"
"""Method of the map that `serving_default` returns, with the logit and in one pass."""
_WEIGHT_FILES = ("saved_model.pb", "variables/")
_COMPUTING = ("backbone", "pooling", "head_widths", "members", "temperatures", "mirrored")
"""Keys of `architecture` that the network's answer depends on."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """Content of `model.json`; `trainer.artifact` reads and writes it."""

    model_id: Annotated[
        str,
        Field(
            pattern="^[0-9a-f]{16}$",
            description="names what the model computes: start of a SHA-256 over `weights_digest` "
            "and the fields that the network's answer depends on",
        ),
    ]
    image_size: Annotated[
        Side, Field(description="side in pixels of the square that the model takes")
    ]
    preprocessing: Annotated[
        Preprocessing, Field(description="how a file became pixels when the model was trained")
    ]
    threshold: Annotated[
        Probability,
        Field(description="calibrated probability at and above which an image is called positive"),
    ]
    temperature: Annotated[
        Positive,
        Field(description="divisor of the logit; already in the SavedModel's `probability`"),
    ]
    uncertain_band: Annotated[
        tuple[Probability, Probability] | None,
        AfterValidator(check_band),
        Field(description="calibrated probabilities `[low, high)` that are called uncertain"),
    ]
    cam: Annotated[Cam, Field(description="the class activation map")]
    architecture: Annotated[
        Architecture,
        Field(
            description="the network; also the threshold's rule and whether it was fitted, and the "
            "recipe, weights (the file's name) and seed that training started from"
        ),
    ]
    dataset: Annotated[
        Dataset,
        Field(
            description="what preparation recorded: fingerprint, counts per split, rejections, "
            "warnings"
        ),
    ]
    metrics: Annotated[
        dict[Name, dict[str, Any]],
        Field(description="as in `metrics.json`, by split ([evaluation.md](evaluation.md))"),
    ]
    versions: Annotated[dict[Name, Name], Field(description="of Python and of the libraries")]
    created: Annotated[
        Name, AfterValidator(check_time), Field(description="time of the export, ISO 8601, UTC")
    ]
    files: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=1000)], Digest],
        Field(description="SHA-256 of every other file, by path relative to the directory"),
    ]
    weights_digest: Annotated[
        Digest | None,
        Field(description="SHA-256 over the values of the network's weights; null in format 1"),
    ] = None
    reference: Annotated[
        dict[Name, Annotated[Histogram, AfterValidator(check_bins)]],
        Field(
            description="histograms that [drift](scoring.md#drift) is measured against, by column"
        ),
    ] = dataclasses.field(default_factory=dict)
    engines: Annotated[
        dict[Name, EngineRecord],
        Field(description="what was measured of each [engine](engines.md), as `openvino/int8`"),
    ] = dataclasses.field(default_factory=dict)
    map_checks: Annotated[
        dict[Name, MapCheck],
        Field(
            description="results of the [checks of the maps](explaining.md#checks-of-the-maps), by "
            "name"
        ),
    ] = dataclasses.field(default_factory=dict)
    intercept: Annotated[
        float,
        Field(
            ge=-1000,
            le=1000,
            allow_inf_nan=False,
            description="added to the divided logit; already in the SavedModel's `probability`",
        ),
    ] = 0.0
    study_calibration: Annotated[
        StudyLine | None,
        Field(
            description="turns the mean logit of a study's images into its probability; null in "
            "older artifacts, where it is that of an image"
        ),
    ] = None
    calibration: Annotated[
        dict[Name, CalibrationRecord],
        Field(
            description="which [calibration](evaluation.md#threshold-and-calibration) was chosen "
            "and by how much it helped, by level: `image` and `study`"
        ),
    ] = dataclasses.field(default_factory=dict)
    format_version: FormatVersion = FORMAT_VERSION

    @property
    def weight_files(self) -> dict[str, str]:
        """Checksums of the SavedModel's files, by path."""
        return {
            name: digest for name, digest in self.files.items() if name.startswith(_WEIGHT_FILES)
        }

    @property
    def saved_model_id(self) -> str:
        """Id of the SavedModel's bytes, which differ between exports even of the same weights."""
        listed = sorted(self.weight_files.items())
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
        if method == ONE_PASS_METHOD:
            return self
        held = self.cam.get("methods", {})
        if method not in held:
            raise ConfigError(
                f"the artifact draws maps by {', '.join([ONE_PASS_METHOD, *held])}, not by"
                f" {method}; humerus-train with --config.cam_methods={method} exports it (on a"
                " finished --workdir once its metrics.json is removed)"
            )
        cam = cast(Cam, {**self.cam, **held[method]})
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

    def compute_id(self) -> str:
        """Return the id of what the model computes, whatever else this says of it."""
        if self.weights_digest is None:
            return self.saved_model_id
        built = cast(Mapping[str, Any], self.architecture)
        computed = {
            "weights": self.weights_digest,
            "image_size": self.image_size,
            "preprocessing": self.preprocessing["version"],
            "temperature": float(self.temperature),
            "layer": self.cam["layer"],
            "methods": sorted(self.cam.get("methods", {})),
            **{key: built.get(key) for key in _COMPUTING},
        }
        # An artifact that lacks these keeps the id that it had before they existed.
        computed |= {key: built[key] for key in ("networks", "flips") if key in built}
        if self.intercept:
            computed["intercept"] = float(self.intercept)
        return _short_digest(json.dumps(computed, sort_keys=True))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
