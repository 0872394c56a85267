"""Write scored images as a CSV file with one row per image."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import storage
from trainer.evaluation.cases import Cases

_FIRST = ("path", "label", "patient_id", "study_id")


def write_csv(path: str, cases: Cases, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write the columns of the cases and further ones, sorted by the path of the image.

    The columns are `path`, `label` (1 positive, 0 negative), `patient_id`, `study_id`, the further
    ones, `logit` and `probability`. A reader never sees a part of the file.

    Args:
      path: the file, local or in a bucket.
      columns: further values by the name of their column, one per case in the order of `cases`.
    """
    table = {name: getattr(cases, name).tolist() for name in _FIRST}
    table |= {**columns, "logit": cases.logit.tolist(), "probability": cases.probability.tolist()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(sorted(zip(*table.values(), strict=True)))
    storage.write_text(path, text.getvalue())
