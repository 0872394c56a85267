"""Have workers make the results of scored radiographs in DICOM: pictures and structured reports."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.drawing.legend import Legend
from trainer.workers import pool

KINDS = ("sc", "sr")
"""sc: a Secondary Capture image of the picture. sr: a structured report of the label."""
_TASK = "trainer.dicom_output.make_results:make_results_task"


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """Holds the result of the model for one radiograph.

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


def make(
    header: bytes,
    kinds: Sequence[str],
    result: ModelResult,
    legend: Legend,
    picture: np.ndarray | None,
    cam: np.ndarray,
) -> list[bytes]:
    """Return the files of `kinds`, of `KINDS`, in their order.

    Args:
      header: of the source, from `trainer.dicom_output.source_header`.
      kinds: `sc` only where there is a picture.
      result: what the files report.
      legend: how the map is drawn.
      picture, cam: as `legend.draw` takes them.

    Raises:
      TaskError: they could not be made.
      PoolStoppedError: the program is ending.
    """
    shown = [] if picture is None else [picture, cam]
    _, files = pool.shared().run(
        _TASK,
        [np.frombuffer(header, np.uint8), *shown],
        kinds=list(kinds),
        result=dataclasses.asdict(result),
        drawing=dataclasses.asdict(legend),
    )
    return [file.tobytes() for file in files]
