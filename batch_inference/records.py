"""What flows through the pipeline, and every reason for which an input can be rejected."""

import dataclasses

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
      study: names the study that the image belongs to.
    """

    uri: str
    name: str
    study: str


@dataclasses.dataclass(frozen=True)
class Example:
    """A decoded input.

    Attributes:
      source: where it came from.
      pixels: uint8 [size, size, 1], what the model takes.
      picture: uint8 [height, width], what the overlay is drawn on; None when no overlay is wanted.
    """

    source: Source
    pixels: np.ndarray
    picture: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Scored:
    """What the model says of an example: calibrated probability in [0, 1], logit, cam float32 [h, w] in logits per cell."""

    example: Example
    probability: float
    logit: float
    cam: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A row of `predictions.*`; the field names are its keys, in this order.

    Attributes:
      uri: of the input, as matched.
      label: positive, negative or uncertain.
      probability: calibrated, in [0, 1]; float32 precision.
      logit: before calibration; float32 precision.
      study: names the study.
      cam: path of the picture relative to the output; None where none was drawn.
      model: id of the artifact.
      engine: what made the row, as `openvino/float32`.
    """

    uri: str
    label: str
    probability: float
    logit: float
    study: str
    cam: str | None
    model: str
    engine: str


@dataclasses.dataclass(frozen=True)
class Study:
    """A row of `studies.*`: mean of the images' probabilities, its label, their number, the image of the highest one."""

    study: str
    label: str
    probability: float
    images: int
    highest: str
    model: str


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row of `rejections.*`: an input without a prediction, `reason` a key of `REASONS`, `detail` a sentence."""

    uri: str
    reason: str
    detail: str
    model: str


def printable(text: str) -> str:
    """`text` with what is no Unicode (undecodable bytes of a file name) as backslash escapes, so that any encoder takes it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
