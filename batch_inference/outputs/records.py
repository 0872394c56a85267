"""Define what flows through the pipeline, and the reasons for which an input is rejected."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import numpy as np

from trainer import radiograph
from trainer.workers import file_results

OTHER_BODY_PART = "other_body_part"
NO_DICOM_RESULT = "no_dicom_result"
REASONS: dict[str, str] = {
    **file_results.REASONS,
    "unreadable": "the file cannot be opened or read: gone, no permission, a folder, "
    "a dangling link, a storage error",
    "inference_failed": "the model failed on this image alone, "
    "or answered with a number that is not finite",
    "write_failed": "the picture could not be drawn or written",
    OTHER_BODY_PART: "with --other_body_parts=reject: DICOM names a body part that the model "
    "was not made for",
}
"""Reason codes of rejections, and what they mean."""
WARNINGS: dict[str, str] = {
    **radiograph.WARNINGS,
    OTHER_BODY_PART: "the DICOM file names a body part that the model was not made for",
    NO_DICOM_RESULT: "with --dicom: no DICOM result was made, as the DICOM file lacks an attribute "
    "that a result must repeat, or it is malformed",
}
"""Warning codes of rows, and what they mean."""


@dataclasses.dataclass(frozen=True, order=True)
class Source:
    """Describes one input.

    Attributes:
      uri: absolute path or URI, as in the rows.
      name: path relative to the root of the input, with `/` between folders; the whole URI where
        inputs have no common root.
      study: value of the manifest's column `study`, or empty.
      carried: (name, value) of the further columns of the manifest, in their order.
      is_grouped: whether its folder may stand for its study; see `study_folders.find_study`.
      address: what to read instead of `uri` where that is a pseudonym.
    """

    uri: str
    name: str
    study: str = ""
    carried: tuple[tuple[str, str], ...] = ()
    is_grouped: bool = True
    address: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Example:
    """A decoded input.

    Attributes:
      source: the input.
      pixels: uint8 [size, size, 1], which the model takes.
      picture: uint8 [height, width], on which the overlay is drawn; None where none is drawn.
      sha256: of the file's bytes, hexadecimal.
      study: name of the image's study.
      frame: index from 0 where frames are scored one by one, else None.
      tags: modality, body_part, view and study_uid, of DICOM files that have them.
      warnings: keys of `WARNINGS`, sorted.
      header: what DICOM results repeat of the file, with identifiers; empty or None where there
        are none.
      is_shown_by_browsers: as of `file_results.Decoded`.
    """

    source: Source
    pixels: np.ndarray
    picture: np.ndarray | None
    sha256: str
    study: str
    frame: int | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    header: bytes | None = dataclasses.field(default=None, repr=False)
    is_shown_by_browsers: bool = True


@dataclasses.dataclass(frozen=True)
class PackedCam:
    """A row of `cams/*.parquet`; the fields are its columns, in this order."""

    uri: Annotated[str, "of the input, as in predictions"]
    frame: Annotated[int | None, "as in predictions"]
    path: Annotated[
        str,
        "path, relative to the output, of a picture drawn later, without the ending of its format",
    ]
    label: Annotated[str, "as in predictions"]
    probability: Annotated[float, "as in predictions"]
    model: Annotated[str, "id of the artifact"]
    cam: Annotated[
        bytes,
        "the signed map over the model's square, in logits per cell: "
        "float16, little-endian, by rows",
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
    """Holds what the model says of an example.

    Attributes:
      example: the image.
      probability: calibrated, in [0, 1].
      logit: before calibration.
      cam: float32 [h, w], logits per cell.
      packed: the row of a file of maps, until it is written.
      stored: path of that file, relative to the output, once it is written.
    """

    example: Example
    probability: float
    logit: float
    cam: np.ndarray
    packed: PackedCam | None = None
    stored: str | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A row of `predictions.*`; the fields are its columns, in this order.

    `carried` is not a column: it holds the further columns of the manifest, which come last.
    """

    uri: Annotated[str, "absolute path or URI of the input"]
    label: Annotated[
        str,
        "positive at or above the threshold in summary.json, else negative; "
        "uncertain within the artifact's band",
    ]
    probability: Annotated[
        float, "calibrated probability of the positive label, in [0, 1]; float32 precision"
    ]
    logit: Annotated[float, "the model's logit before calibration; float32 precision"]
    study: Annotated[
        str, "name of the study, by --study_key; for DICOM, a pseudonym of its StudyInstanceUID"
    ]
    cam: Annotated[
        str | None,
        "path, relative to the output, of the picture, or of the file that holds the packed map; "
        "null where there is none",
    ]
    model: Annotated[str, "id of the artifact"]
    engine: Annotated[
        str,
        "engine and precision that made the row, as openvino/int8@1c9a3f20; after the @ an id of "
        "what humerus-verify made for this engine, where there is any",
    ]
    brightness: Annotated[
        float, "mean grey level of the square that the model saw, in [0, 255]; float32 precision"
    ]
    sha256: Annotated[str, "SHA-256 of the file's bytes, hexadecimal"]
    duplicate_of: Annotated[
        str | None,
        "first uri, in alphabetical order, of the scored inputs with the same bytes; "
        "null for that input itself",
    ] = None
    frame: Annotated[
        int | None, "index of the frame, from 0, where a file's frames are scored one by one"
    ] = None
    modality: Annotated[
        str | None,
        "DICOM Modality, such as CR; null for other files and for values outside the standard",
    ] = None
    body_part: Annotated[str | None, "DICOM BodyPartExamined, with the same exceptions"] = None
    view: Annotated[str | None, "DICOM ViewPosition, with the same exceptions"] = None
    warnings: Annotated[
        tuple[str, ...],
        "warning codes: what is remarkable in the picture; in CSV separated by semicolons",
    ] = ()
    dicom: Annotated[
        tuple[str, ...],
        "paths, relative to the output, of the results in DICOM, which hold identifiers; in CSV "
        "separated by semicolons",
    ] = ()
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
    """A row of `studies.*`."""

    study: Annotated[str, "name of the study"]
    label: Annotated[str, "label of the probability, as in predictions"]
    probability: Annotated[
        float,
        "calibrated probability of the mean of the images' logits, in [0, 1]; float32 precision",
    ]
    images: Annotated[
        int, "number of scored images; images with the same bytes count once, also in the mean"
    ]
    highest: Annotated[str, "uri of the image with the highest probability"]
    model: Annotated[str, "id of the artifact"]


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row of `rejections.*`: an input without a prediction. `carried` is as in `Prediction`."""

    uri: Annotated[str, "absolute path or URI of the input"]
    reason: Annotated[str, "reason code: why there is no prediction"]
    detail: Annotated[str, "what was found, in a sentence; it never quotes patient data"]
    model: Annotated[str, "id of the artifact"]
    sha256: Annotated[
        str | None, "SHA-256 of the file's bytes, hexadecimal; null where they could not be read"
    ] = None
    frame: Annotated[
        int | None, "index of the frame, from 0, where one frame of a file is rejected"
    ] = None
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)


def reject(
    source: Source,
    reason: str,
    detail: str,
    model: str,
    sha256: str | None = None,
    frame: int | None = None,
) -> Rejection:
    """Return the rejection of an input or a frame; `detail` is cut to a line of 300 characters."""
    detail = replace_surrogates(" ".join(detail.split())[:300])
    return Rejection(
        escape_reversibly(source.uri), reason, detail, model, sha256, frame, dict(source.carried)
    )


def reject_example(example: Example, reason: str, detail: str, model: str) -> Rejection:
    """Return the rejection of a decoded image, as `reject` does."""
    return reject(example.source, reason, detail, model, example.sha256, example.frame)


def replace_surrogates(text: str) -> str:
    """Return `text` with backslash escapes for lone surrogates, so that it can be encoded.

    Python represents the bytes of a file name that are not UTF-8 by such surrogates.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def escape_reversibly(text: str) -> str:
    """Return `text` as `replace_surrogates` does, but different for different texts.

    If the result has an escape, or what looks like one, each backslash of `text` is doubled.
    """
    plain = replace_surrogates(text)
    return plain if "\\u" not in plain else replace_surrogates(text.replace("\\", "\\\\"))


def float32(value: float) -> float:
    """Return the shortest decimal number of a float32: 0.1 rather than 0.10000000149011612."""
    return float(str(np.float32(value)))
