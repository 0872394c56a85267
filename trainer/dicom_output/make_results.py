"""Make the DICOM results of a scored radiograph, as a task of a worker process."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom

from trainer.decoding.dicom_containment import contain_errors
from trainer.dicom_output import capture, report, source_header
from trainer.drawing import legend
from trainer.drawing.legend import Legend


def make_results_task(
    arrays: Sequence[np.ndarray],
    kinds: Sequence[str],
    result: dict[str, Any],
    drawing: dict[str, Any],
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the files of `kinds` in their order, each uint8 [n].

    Args:
      arrays: the header of `source_header.extract`, uint8 [n]; for `sc` also the picture and the
        map, as `legend.draw` takes them.
      kinds: `sc`, `sr` or both.
      result: fields of `trainer.workers.dicom_results.ModelResult`.
      drawing: fields of `Legend`.
    """
    made = []
    with contain_errors():
        source = source_header.parse(arrays[0].tobytes())
        settings = [result["model"], result["engine"], result["method"], result["frame"]]
        for kind in kinds:
            if kind == "sc":
                drawn = legend.draw(arrays[1], arrays[2], Legend(**drawing), with_strip=False)
                looks = [drawing["style"], drawing["colours"]]
                dataset = capture.make(
                    source, drawn, [*settings, *looks], result["frame"], result["created"]
                )
            else:
                dataset = report.make(
                    source,
                    result["label"],
                    result["probability"],
                    {
                        "engine": result["engine"],
                        "threshold": result["threshold"],
                    },
                    [*settings, result["threshold"]],
                    result["frame"],
                    result["created"],
                )
            made.append(np.frombuffer(_encode(dataset), np.uint8))
    return {}, made


def _encode(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
