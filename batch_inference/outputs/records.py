"""What flows through the pipeline, and every reason for which an input can be rejected."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import numpy as np

from trainer import radiograph

REASONS: dict[str, str] = {
    **radiograph.REASONS,
    "unreadable": "the file cannot be opened or read: gone, no permission, a folder, a dangling link, a storage error",
    "decode_failed": "decoding failed in a way that no other reason names",
    "inference_failed": "the model failed on this image alone, or answered with a number that is not finite",
    "write_failed": "the picture could not be drawn or written",
}


@dataclasses.dataclass(frozen=True, order=True)
class Source:
    """One input.

    Attributes:
      uri: absolute path or URI to read from.
      name: path relative to the root of the input, `/` between folders; the whole URI where there is no common root.
      study: what a manifest's column `study` says, empty where it says nothing.
      carried: (name, value) of the further columns of a manifest, in their order.
    """

    uri: str
    name: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Example:
    """A decoded input.

    Attributes:
      source: where it came from.
      pixels: uint8 [size, size, 1], what the model takes.
      picture: uint8 [height, width], what the overlay is drawn on; None when no overlay is wanted.
      sha256: of the file's bytes, hexadecimal.
      study: names the study that the image belongs to.
      frame: counted from 0, where a file's frames are scored one by one; else None.
      tags: DICOM only, where present: modality, body_part, view, study_uid.
    """

    source: Source
    pixels: np.ndarray
    picture: np.ndarray | None
    sha256: str
    study: str
    frame: int | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PackedCam:
    """A row of `cams/*.parquet`; the fields are its columns, in this order, as described."""

    uri: Annotated[str, "of the input, as in predictions"]
    frame: Annotated[int | None, "as in predictions"]
    path: Annotated[
        str,
        "where a picture drawn later goes, relative to the output, but for the ending of its file format",
    ]
    label: Annotated[str, "as in predictions"]
    probability: Annotated[float, "as in predictions"]
    model: Annotated[str, "id of the artifact"]
    cam: Annotated[
        bytes,
        "the signed map in logits per cell, over the model's square: float16, little-endian, row by row",
    ]
    cam_height: Annotated[int, "rows of the map"]
    cam_width: Annotated[int, "columns of the map"]
    scale: Annotated[
        float, "value of the map drawn at full colour; the same for all images of a model"
    ]
    image_size: Annotated[int, "side of the model's square in pixels, letterbox border included"]
    picture: Annotated[
        bytes, "the radiograph in its own aspect ratio, no side over 1024 pixels: JPEG, grey"
    ]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What the model says of an example.

    Attributes:
      example: what it was made of.
      probability: calibrated, in [0, 1].
      logit: before calibration.
      cam: float32 [h, w], logits per cell.
      packed: the map and the picture on their way into a file of many.
      stored: path of that file relative to the output, once it is written.
    """

    example: Example
    probability: float
    logit: float
    cam: np.ndarray
    packed: PackedCam | None = None
    stored: str | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A row of `predictions.*`; the fields are its columns, in this order, as described, but for `carried`.

    What `carried` holds stands beside the others: the further columns of a manifest, none of which has the name of a field.
    """

    uri: Annotated[str, "of the input, as matched"]
    label: Annotated[
        str,
        "positive from the threshold that summary.json tells on, else negative; uncertain within the artifact's band",
    ]
    probability: Annotated[float, "of the positive label, calibrated, in [0, 1]; float32 precision"]
    logit: Annotated[float, "before calibration; float32 precision"]
    study: Annotated[
        str, "names the study, by --study_key; of a DICOM file a pseudonym of its StudyInstanceUID"
    ]
    cam: Annotated[
        str | None,
        "file, relative to the output, with the picture or among others the packed map; null where none was kept",
    ]
    model: Annotated[str, "id of the artifact"]
    engine: Annotated[str, "engine and precision that made the row, as openvino/int8"]
    brightness: Annotated[
        float, "mean grey level of the square that the model saw, in [0, 255]; float32 precision"
    ]
    sha256: Annotated[str, "of the file's bytes, hexadecimal"]
    duplicate_of: Annotated[
        str | None,
        "first, by uri, of the scored inputs with the same bytes; null for that first one",
    ] = None
    frame: Annotated[int | None, "counted from 0, where a file's frames are scored one by one"] = (
        None
    )
    modality: Annotated[
        str | None,
        "DICOM Modality, as CR; null for other files and where it is no word of the standard",
    ] = None
    body_part: Annotated[str | None, "DICOM BodyPartExamined, in the same way"] = None
    view: Annotated[str | None, "DICOM ViewPosition, in the same way"] = None
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
    """A row of `studies.*`."""

    study: Annotated[str, "names the study"]
    label: Annotated[str, "as in predictions, of the mean probability"]
    probability: Annotated[
        float, "mean of the images' calibrated probabilities, in [0, 1]; float32 precision"
    ]
    images: Annotated[
        int, "number of scored images; those with the same bytes count once, here and in the mean"
    ]
    highest: Annotated[str, "uri of the image with the highest probability"]
    model: Annotated[str, "id of the artifact"]


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row of `rejections.*`: an input without a prediction; `carried` as in `Prediction`."""

    uri: Annotated[str, "of the input, as matched"]
    reason: Annotated[str, "why there is no prediction: one of the reason codes"]
    detail: Annotated[str, "a sentence on what was found; never what a file says of a patient"]
    model: Annotated[str, "id of the artifact"]
    sha256: Annotated[
        str | None, "of the file's bytes, hexadecimal; null where they could not be read"
    ] = None
    frame: Annotated[int | None, "counted from 0, where one frame of a file is rejected"] = None
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)


def reject(
    source: Source,
    reason: str,
    detail: str,
    model: str,
    sha256: str | None = None,
    frame: int | None = None,
) -> Rejection:
    """The rejection of an input, or of one frame of it; the detail becomes one line of at most 300 characters."""
    detail = readable(" ".join(detail.split())[:300])
    return Rejection(
        printable(source.uri), reason, detail, model, sha256, frame, dict(source.carried)
    )


def readable(text: str) -> str:
    """`text` with what is no Unicode (undecodable bytes of a file name) as backslash escapes, so that any encoder takes it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """The same, for names that must stay apart: where there is such an escape, or what looks like one, each backslash of `text` is doubled."""
    plain = readable(text)
    return plain if "\\u" not in plain else readable(text.replace("\\", "\\\\"))


def float32(value: float) -> float:
    """The shortest decimal number that is this float32: 0.1 and not 0.10000000149011612."""
    return float(str(np.float32(value)))
