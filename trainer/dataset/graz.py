"""Read GRAZPEDWRI-DX as it is published: `dataset.csv`, and PNG files of 16 bits in its folders.

Nagy et al., "A pediatric wrist trauma X-ray dataset (GRAZPEDWRI-DX) for machine learning",
Scientific Data 9, 222 (2022). A file is named after the column `filestem`.
"""

import collections
import pathlib
import posixpath
from collections.abc import Sequence

from trainer.dataset import collection_table
from trainer.dataset.example import Example
from trainer.dataset.listing import OUTSIDE_LAYOUT, Listing, Omission

_NAMES = ("filestem", "patient_id", "study_number")
_CARRIED = (
    *("gender", "age", "laterality", "projection", "initial_exam", "ao_classification", "cast"),
    *("diagnosis_uncertain", "osteopenia", "metal"),
)
"""Columns that become attributes where the table has them."""


def list_source(root: str, paths: Sequence[str]) -> Listing:
    """Return the files of the collection, which names its patients.

    A study is one of a patient. Where a fracture is visible in only some of its images, each of
    them counts as a study, since all images of a study share a label.

    Args:
      root: its folder.
      paths: the files in it, relative to it.

    Raises:
      DataError: the folder or its table is not that of GRAZPEDWRI-DX, or a file is there twice.
    """
    rows = list(collection_table.read(root, paths, _NAMES, ("fracture_visible",), "GRAZPEDWRI-DX"))
    images = collection_table.index_files(
        root,
        (
            (pathlib.PurePosixPath(path).stem, path)
            for path in paths
            if path.lower().endswith(".png")
        ),
        "GRAZPEDWRI-DX",
        "PNG files of GRAZPEDWRI-DX: expected folders such as images_part1; unpack all parts of "
        "the collection there",
    )
    labels: dict[str, set[bool]] = collections.defaultdict(set)
    for row in rows:
        labels[_name_study(row)].add(collection_table.read_flag(row, "fracture_visible"))
    examples = []
    for row in rows:
        # A row without its file becomes a rejection.
        path = images.pop(row["filestem"], f"{row['filestem']}.png")
        study = _name_study(row)
        examples.append(
            Example(
                path,
                posixpath.join(root, path),
                int(collection_table.read_flag(row, "fracture_visible")),
                patient_id=row["patient_id"],
                study_id=study if len(labels[study]) == 1 else path,
                attributes={name: row[name] for name in _CARRIED if name in row},
            )
        )
    detail = "dataset.csv has no row for the file"
    omissions = [Omission(path, OUTSIDE_LAYOUT, detail) for path in images.values()]
    return Listing(sorted(examples, key=lambda example: example.path), omissions)


def _name_study(row: collection_table.Row) -> str:
    return f"{row['patient_id']}/{row['study_number']}"
