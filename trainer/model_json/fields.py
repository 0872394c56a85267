"""The objects that `model.json` holds: the type, range and meaning of each of their fields.

`trainer.model_json.description` has the fields themselves.
"""

import datetime
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

LARGEST_IMAGE = 8192
"""Longest side in pixels, so that a damaged number can't make a scorer take all memory."""


def check_band(band: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a band [low, high), or None, unchanged; raise `ValueError` if low exceeds high."""
    if band and band[0] > band[1]:
        raise ValueError("the first value must not exceed the second")
    return band


def check_time(text: str) -> str:
    """Return a time in ISO 8601 unchanged; raise `ValueError` for any other text."""
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


class Extensible(TypedDict, total=False):
    """An object that may have further keys: a later version may have written it."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class Map(Extensible):
    """One kind of map."""

    height: Annotated[Side, Field(description="rows of the map")]
    width: Annotated[Side, Field(description="columns of the map")]
    scale: Annotated[
        Positive, Field(description="absolute value drawn at full colour, in logits per cell")
    ]


class Cam(Map):
    """The map of `serving_default` and those of the further signatures."""

    layer: Annotated[Name, Field(description="layer of the network that the map is made of")]
    methods: NotRequired[
        Annotated[
            dict[Name, Map],
            Field(description="the same of every further signature, by its name"),
        ]
    ]


class Preprocessing(Extensible):
    """How a file became pixels; see `radiograph.PREPROCESSING`."""

    version: Annotated[
        int, Field(ge=1, description="a scorer that makes other pixels refuses the model")
    ]


class Network(Extensible):
    """One network of an ensemble."""

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


class Part(Extensible):
    """An artifact that was combined with others."""

    model_id: Annotated[Name, Field(description="its `model_id`")]
    weight: Annotated[Share, Field(description="share of its calibrated logit in the mean")]


class Architecture(Network):
    """The network, and what training started from."""

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
    flips: NotRequired[
        Annotated[
            Literal["none", "horizontal", "both"],
            Field(description="the flipped copies of an image that are scored too"),
        ]
    ]
    flip_gains: NotRequired[
        Annotated[
            dict[str, Annotated[float, Field(ge=-1, le=1)]],
            Field(
                description="AUROC of held-out images with flipped copies minus that without; "
                "empty where it was not measured"
            ),
        ]
    ]
    mirrored: NotRequired[
        Annotated[bool, Field(description="of earlier versions: `flips` is `horizontal`")]
    ]


class Dataset(Extensible, total=False):
    """What preparation recorded of the training data."""

    fingerprint: Annotated[Name, Field(description="names the content of the data")]
    simulated: Annotated[bool, Field(description="whether the radiographs are simulated")]
    body_parts: Annotated[list[Name], Field(description="MURA's names of the body parts")]


class Histogram(Extensible):
    """A histogram of the data that the model was made on."""

    edges: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]],
        Field(min_length=2, max_length=1001, description="edges of the bins, one more than bins"),
    ]
    shares: Annotated[
        list[Share],
        Field(min_length=1, max_length=1000, description="share of the images in each bin"),
    ]
    images: NotRequired[Annotated[Count, Field(description="number of images")]]


def check_bins(histogram: Histogram) -> Histogram:
    """Return a histogram unchanged; raise `ValueError` if edges and shares don't fit together."""
    if len(histogram["edges"]) != len(histogram["shares"]) + 1:
        raise ValueError("there must be one more edge than shares")
    return histogram


class PairedDifference(Extensible):
    """An engine's metric minus the reference's, on the same images."""

    difference: Annotated[Change, Field(description="engine minus reference")]
    low: Annotated[Change | None, Field(description="lower end of the 95 % interval")]
    high: Annotated[Change | None, Field(description="its upper end")]


class AlignmentRecord(Extensible):
    """A line from the logit of an engine to that of the reference."""

    slope: Annotated[Positive, Field(description="factor of the logit")]
    offset: Annotated[
        float,
        Field(ge=-1000, le=1000, allow_inf_nan=False, description="added to the logit afterwards"),
    ]


class EngineRecord(Extensible, total=False):
    """What was measured of one engine and precision."""

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


class CalibrationFigures(Extensible, total=False):
    """How good the probabilities of one method are on cases that it was not fitted on."""

    log_loss: Annotated[float, Field(ge=0, allow_inf_nan=False, description="mean log loss")]
    brier: Annotated[Share, Field(description="mean squared error of the probability")]
    ece: Annotated[Share, Field(description="expected calibration error")]


class CalibrationRecord(Extensible, total=False):
    """The method of calibration that was chosen."""

    method: Annotated[Name, Field(description="`unchanged`, `temperature` or `platt`")]
    cases: Annotated[Count, Field(description="number of held-out images or studies")]
    methods: Annotated[
        dict[Name, CalibrationFigures], Field(description="cross-fitted figures of each method")
    ]


class MapCheck(Extensible):
    """The result of one check of the class activation maps."""

    passed: Annotated[bool | None, Field(description="null if it was not measured")]
    said: Annotated[Text, Field(description="the result in words")]


FormatVersion = Annotated[
    int, Field(ge=1, description="version of this description; a program refuses a newer one")
]


class Version(TypedDict):
    """What every version of `model.json` has."""

    format_version: FormatVersion
