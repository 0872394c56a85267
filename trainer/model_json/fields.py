"""The schema of `model.json`: the type, range and meaning of each field.

`trainer.artifact.Artifact` is made of these types, pydantic checks a file against them, and
`python docs/model_json.py` writes the table of docs/artifact.md from them.
"""

import datetime
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

LARGEST_IMAGE = 8192
"""Side in pixels, far beyond any: a damaged number must not ask for all the memory there is."""

_MORE_KEYS = ConfigDict(extra="allow")


def _check_band(band: tuple[float, float] | None) -> tuple[float, float] | None:
    if band and band[0] > band[1]:
        raise ValueError("the first value must not exceed the second")
    return band


def _check_time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Change = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=LARGEST_IMAGE)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]


class Map(TypedDict):
    """Describes one kind of map."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    height: Annotated[Side, Field(description="rows of the map")]
    width: Annotated[Side, Field(description="columns of the map")]
    scale: Annotated[
        Positive, Field(description="absolute value drawn at full colour, in logits per cell")
    ]


class Cam(Map):
    """Describes the map of `serving_default` and those of the further signatures."""

    layer: Annotated[Name, Field(description="layer of the network that the map is made of")]
    methods: NotRequired[
        Annotated[
            dict[Name, Map],
            Field(description="the same of every further signature, by its name"),
        ]
    ]


class Preprocessing(TypedDict):
    """Records how a file became pixels; see `radiograph.PREPROCESSING`."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    version: Annotated[
        int, Field(ge=1, description="a scorer that makes other pixels refuses the model")
    ]


class Network(TypedDict):
    """Describes one network of an ensemble."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    backbone: Annotated[
        Name, Field(description="the Keras application; of several, their names joined by `+`")
    ]
    pooling: NotRequired[Annotated[Name, Field(description="how the last feature map is pooled")]]
    head_widths: NotRequired[
        Annotated[
            list[Annotated[int, Field(ge=1)]], Field(description="units of the head's layers")
        ]
    ]
    dropout: NotRequired[
        Annotated[Share, Field(description="share of the head's units dropped in training")]
    ]


class Part(TypedDict):
    """An artifact that was combined with others."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    model_id: Annotated[Name, Field(description="its `model_id`")]
    weight: Annotated[Share, Field(description="share of its calibrated logit in the mean")]


class Architecture(Network):
    """Describes the network, and what training started from."""

    networks: NotRequired[
        Annotated[
            list[Network],
            Field(description="of an ensemble whose members differ: what each is made of"),
        ]
    ]
    parts: NotRequired[
        Annotated[list[Part], Field(description="the artifacts that humerus-combine combined")]
    ]
    members: NotRequired[
        Annotated[int, Field(ge=1, le=1000, description="number of networks of an ensemble")]
    ]
    temperatures: NotRequired[
        Annotated[list[Positive], Field(description="divisor of each member's logit")]
    ]
    mirrored: NotRequired[
        Annotated[bool, Field(description="whether the mirror image is scored too")]
    ]
    mirror_gain: NotRequired[
        Annotated[
            float | None,
            Field(
                ge=-1,
                le=1,
                description="AUROC of held-out images with the mirror image minus that without; "
                "null where it was not measured",
            ),
        ]
    ]


class Dataset(TypedDict, total=False):
    """Repeats what preparation recorded of the training data."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    fingerprint: Annotated[Name, Field(description="names the content of the data")]
    simulated: Annotated[bool, Field(description="whether the radiographs are simulated")]
    body_parts: Annotated[list[Name], Field(description="MURA's names of the body parts")]


class Histogram(TypedDict):
    """A histogram of the data that the model was made on."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    edges: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]],
        Field(min_length=2, max_length=1001, description="edges of the bins, one more than bins"),
    ]
    shares: Annotated[
        list[Share],
        Field(min_length=1, max_length=1000, description="share of the images in each bin"),
    ]
    images: NotRequired[Annotated[Count, Field(description="number of images")]]


def _check_bins(histogram: Histogram) -> Histogram:
    if len(histogram["edges"]) != len(histogram["shares"]) + 1:
        raise ValueError("there must be one more edge than shares")
    return histogram


class PairedDifference(TypedDict):
    """An engine's metric minus the reference's, on the same images."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    difference: Annotated[Change, Field(description="engine minus reference")]
    low: Annotated[Change | None, Field(description="lower end of the 95 % interval")]
    high: Annotated[Change | None, Field(description="its upper end")]


class AlignmentRecord(TypedDict):
    """A line from the logit of an engine to that of the reference."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    slope: Annotated[Positive, Field(description="factor of the logit")]
    offset: Annotated[
        float,
        Field(ge=-1000, le=1000, allow_inf_nan=False, description="added to the logit afterwards"),
    ]


class EngineRecord(TypedDict, total=False):
    """Records what was measured of one engine and precision."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    within_tolerance: Annotated[
        bool, Field(description="whether the scorer may choose it by itself")
    ]
    images_per_second: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="speed of the network alone")
    ]
    device: Annotated[Name, Field(description="`CPU` or `GPU`")]
    error: Annotated[Text, Field(description="why the engine failed")]
    verdict: Annotated[Text, Field(description="why it may be chosen, or may not")]
    probability_mean: Annotated[Share, Field(description="mean difference of the probability")]
    probability_largest: Annotated[Share, Field(description="largest difference of it")]
    labels_changed: Annotated[Share, Field(description="share of the labels that change")]
    labels_changed_high: Annotated[Share, Field(description="its upper 95 % bound")]
    logit_difference: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="root mean square, in standard deviations of the logits",
        ),
    ]
    cam_correlation: Annotated[
        float, Field(ge=-1, le=1, allow_inf_nan=False, description="of the maps' cells")
    ]
    alignment: Annotated[
        AlignmentRecord, Field(description="what brings its logits to the reference's scale")
    ]
    auroc: Annotated[PairedDifference, Field(description="AUROC, where labels are known")]
    accuracy: Annotated[PairedDifference, Field(description="accuracy at the threshold")]
    ece: Annotated[PairedDifference, Field(description="calibration error")]


class StudyLine(TypedDict):
    """The line from the mean logit of a study to its calibrated logit."""

    temperature: Annotated[Positive, Field(description="divisor of the mean logit")]
    intercept: Annotated[
        float, Field(ge=-1000, le=1000, allow_inf_nan=False, description="added afterwards")
    ]


class CalibrationFigures(TypedDict, total=False):
    """Records how good the probabilities of one method are on cases that it was not fitted on."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    log_loss: Annotated[float, Field(ge=0, allow_inf_nan=False, description="mean log loss")]
    brier: Annotated[Share, Field(description="mean squared error of the probability")]
    ece: Annotated[Share, Field(description="expected calibration error")]


class CalibrationRecord(TypedDict, total=False):
    """Records which method of calibration was chosen."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    method: Annotated[Name, Field(description="`unchanged`, `temperature` or `platt`")]
    cases: Annotated[Count, Field(description="number of held-out images or studies")]
    methods: Annotated[
        dict[Name, CalibrationFigures], Field(description="cross-fitted figures of each method")
    ]


class MapCheck(TypedDict):
    """Records the result of one check of the class activation maps."""

    __pydantic_config__ = _MORE_KEYS  # type: ignore[misc]

    passed: Annotated[bool | None, Field(description="null if it was not measured")]
    said: Annotated[Text, Field(description="the result in words")]


ModelId = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{16}$",
        description="names what the model computes: start of a SHA-256 over `weights_digest` and "
        "the fields that the network's answer depends on",
    ),
]
WeightsDigest = Annotated[
    Digest | None,
    Field(description="SHA-256 over the values of the network's weights; null in format 1"),
]
ImageSize = Annotated[Side, Field(description="side in pixels of the square that the model takes")]
Contract = Annotated[
    Preprocessing, Field(description="how a file became pixels when the model was trained")
]
Threshold = Annotated[
    Probability,
    Field(description="calibrated probability at and above which an image is called positive"),
]
Temperature = Annotated[
    Positive, Field(description="divisor of the logit; already in the SavedModel's `probability`")
]
Intercept = Annotated[
    float,
    Field(
        ge=-1000,
        le=1000,
        allow_inf_nan=False,
        description="added to the divided logit; already in the SavedModel's `probability`",
    ),
]
StudyCalibration = Annotated[
    StudyLine | None,
    Field(
        description="turns the mean logit of a study's images into its probability; null in older "
        "artifacts, where it is that of an image"
    ),
]
Calibration = Annotated[
    dict[Name, CalibrationRecord],
    Field(
        description="which [calibration](evaluation.md#threshold-and-calibration) was chosen and "
        "by how much it helped, by level: `image` and `study`"
    ),
]
UncertainBand = Annotated[
    tuple[Probability, Probability] | None,
    AfterValidator(_check_band),
    Field(description="calibrated probabilities `[low, high)` that are called uncertain"),
]
MainCam = Annotated[Cam, Field(description="the class activation map")]
Built = Annotated[
    Architecture,
    Field(
        description="the network; also the threshold's rule and whether it was fitted, and the "
        "recipe, weights (the file's name) and seed that training started from"
    ),
]
TrainingData = Annotated[
    Dataset,
    Field(
        description="what preparation recorded: fingerprint, counts per split, rejections, warnings"
    ),
]
Metrics = Annotated[
    dict[Name, dict[str, Any]],
    Field(description="as in `metrics.json`, by split ([evaluation.md](evaluation.md))"),
]
Reference = Annotated[
    dict[Name, Annotated[Histogram, AfterValidator(_check_bins)]],
    Field(description="histograms that [drift](scoring.md#drift) is measured against, by column"),
]
Engines = Annotated[
    dict[Name, EngineRecord],
    Field(description="what was measured of each [engine](engines.md), as `openvino/int8`"),
]
MapChecks = Annotated[
    dict[Name, MapCheck],
    Field(
        description="results of the [checks of the maps](explaining.md#checks-of-the-maps), by name"
    ),
]
Versions = Annotated[dict[Name, Name], Field(description="of Python and of the libraries")]
Created = Annotated[
    Name, AfterValidator(_check_time), Field(description="time of the export, ISO 8601, UTC")
]
Files = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=1000)], Digest],
    Field(description="SHA-256 of every other file, by path relative to the directory"),
]
FormatVersion = Annotated[
    int, Field(ge=1, description="version of this description; a program refuses a newer one")
]
