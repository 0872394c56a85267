"""Has workers make the results of scored radiographs in DICOM: pictures and structured reports."""

import dataclasses
import importlib.util
from collections.abc import Sequence

import numpy as np

from trainer.workers import pool

KINDS = ("sc", "sr")
"""sc: a Secondary Capture image of the picture. sr: a structured report of the label."""
_TASK = "trainer.dicom_output.make_results:make_results_task"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Holds what the model says of a radiograph.

    Attributes:
      label, probability, model, engine, frame: as in the row.
      threshold: probability from which on an image is positive.
      method: that of the map.
      created: when the model was made, ISO 8601.
    """

    label: str
    probability: float
    model: str
    engine: str
    frame: int | None
    threshold: float
    method: str
    created: str


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Says how a map is drawn, in the arguments of `overlay.draw`."""

    image_size: int
    scale: float
    style: str
    colours: str


def is_installed() -> bool:
    """Return whether the package is here that makes them."""
    return importlib.util.find_spec("highdicom") is not None


def make(
    header: bytes,
    kinds: Sequence[str],
    finding: Finding,
    drawing: Drawing,
    picture: np.ndarray | None,
    cam: np.ndarray,
) -> list[bytes]:
    """Return the files of `kinds`, of `KINDS`, in their order.

    Args:
      header: of the source, from `trainer.dicom_output.source_header`.
      kinds: `sc` only where there is a picture.
      finding, drawing: what is said and drawn.
      picture, cam: as `overlay.draw` takes them.

    Raises:
      TaskError: they could not be made.
      StoppedError: the program is ending.
    """
    shown = [] if picture is None else [picture, cam]
    _, files = pool.shared().run(
        _TASK,
        [np.frombuffer(header, np.uint8), *shown],
        kinds=list(kinds),
        finding=dataclasses.asdict(finding),
        drawing=dataclasses.asdict(drawing),
    )
    return [file.tobytes() for file in files]
