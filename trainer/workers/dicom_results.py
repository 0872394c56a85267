"""Has workers make the results of scored radiographs in DICOM: pictures and structured reports."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.workers import pool

KINDS = ("sc", "sr")
"""sc: a Secondary Capture image of the picture. sr: a structured report of the label."""
_TASK = "trainer.dicom_output.make_results:make_results_task"


def make(
    header: bytes,
    kinds: Sequence[str],
    finding: Mapping[str, Any],
    drawing: Mapping[str, Any],
    picture: np.ndarray | None,
    cam: np.ndarray,
) -> list[bytes]:
    """Return the files of `kinds`, of `KINDS`, in their order.

    Args:
      header: of the source, from `trainer.dicom_output.source_header`.
      kinds: `sc` only where there is a picture.
      finding: what the model says: `label`, `probability`, `model`, `engine` and `frame` as in the
        row; `threshold`, from which on an image is positive; `method`, of the map; and `created`,
        when the model was made, ISO 8601.
      drawing: the further arguments of `overlay.draw`.
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
        finding=dict(finding),
        drawing=dict(drawing),
    )
    return [file.tobytes() for file in files]
