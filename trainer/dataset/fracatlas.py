"""Read FracAtlas as it is published: `images/Fractured`, `images/Non_fractured`, `dataset.csv`.

Abedeen et al., "FracAtlas", Scientific Data 10, 521 (2023). The collection names no patients. Its
images are numbered in the order of collection, so that a run of consecutive numbers that show the
same body parts stands for a patient: a proxy, which may join several patients.
"""

import posixpath
import re
from collections.abc import Sequence

from trainer.dataset import collection_table
from trainer.dataset.example import Example
from trainer.dataset.listing import OTHER_BODY_PART, OUTSIDE_LAYOUT, Listing, Omission
from trainer.errors import ConfigError, DataError

BODY_PARTS = ("hand", "leg", "hip", "shoulder")
_ALL = "all"
_HUMERUS = "xr_humerus"
"""MURA's upper arm, the default of --body_parts: FracAtlas files it under the shoulder."""
_CARRIED = ("mixed", "hardware", "multiscan", "frontal", "lateral", "oblique")
_IMAGE = re.compile(r"images/(?P<folder>fractured|non[-_ ]?fractured)/[^/]+", re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,18})\.\w+\Z")  # of a longer one, the last digits


def list_source(root: str, paths: Sequence[str], body_parts: Sequence[str]) -> Listing:
    """Return the files of the collection.

    Args:
      root: its folder.
      paths: the files in it, relative to it.
      body_parts: members of `BODY_PARTS`, `XR_HUMERUS` for the shoulder, or `all`.

    Raises:
      ConfigError: a body part is unknown.
      DataError: the folder or its table is not that of FracAtlas.
    """
    wanted = _select(body_parts)
    columns = (*BODY_PARTS, *_CARRIED, "fractured")
    rows = list(collection_table.read(root, paths, ("image_id",), columns, "FracAtlas"))
    images = collection_table.index_files(
        root,
        ((posixpath.basename(path), path) for path in filter(_IMAGE.fullmatch, paths)),
        "FracAtlas",
        "images of FracAtlas: expected images/Fractured/ and images/Non_fractured/; unpack the "
        "whole collection there",
    )
    patients = _group([row["image_id"] for row in rows], [_read_parts(row) for row in rows])
    examples, omissions = [], []
    for row, patient in zip(rows, patients, strict=True):
        parts = _read_parts(row)
        label = collection_table.read_flag(row, "fractured")
        folder = "Fractured" if label else "Non_fractured"
        # A row without its file becomes a rejection.
        path = images.pop(row["image_id"], f"images/{folder}/{row['image_id']}")
        if not wanted & set(parts):
            shown = " and ".join(parts) or "no body part"
            omissions.append(Omission(path, OTHER_BODY_PART, f"{shown} is not among --body_parts"))
            continue
        if path.split("/")[1].lower().startswith("non") == label:
            raise DataError(
                f"{path} lies in another folder than dataset.csv says (fractured is {int(label)}); "
                "unpack the collection again"
            )
        attributes = {name: row[name] for name in _CARRIED} | {"body_part": " ".join(parts)}
        uri = posixpath.join(root, path)
        examples.append(Example(path, uri, int(label), patient, path, attributes=attributes))
    detail = "dataset.csv has no row for the file"
    omissions += [Omission(path, OUTSIDE_LAYOUT, detail) for path in images.values()]
    return Listing(sorted(examples, key=lambda example: example.path), omissions)


def _select(asked: Sequence[str]) -> set[str]:
    """Return the body parts to take."""
    names = {part.lower() for part in asked}
    if _ALL in names:
        return set(BODY_PARTS)
    wanted = {"shoulder" if name == _HUMERUS else name for name in names}
    if unknown := wanted - set(BODY_PARTS):
        raise ConfigError(
            f"FracAtlas has no body part {min(unknown)}: expected {', '.join(BODY_PARTS)} or all"
        )
    return wanted


def _read_parts(row: collection_table.Row) -> tuple[str, ...]:
    return tuple(part for part in BODY_PARTS if collection_table.read_flag(row, part))


def _group(names: Sequence[str], parts: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a stand-in for the patient of each image: the first image of its run."""
    numbers = {name: int(match[1]) for name in names if (match := _NUMBER.search(name))}
    order = sorted(range(len(names)), key=lambda index: numbers.get(names[index], -1))
    found = [""] * len(names)
    before: int | None = None
    for index in order:
        number = numbers.get(names[index])
        follows = (
            before is not None
            and number is not None
            and number - 1 == numbers.get(names[before])
            and parts[index] == parts[before]
        )
        found[index] = found[before] if follows and before is not None else names[index]
        before = index
    return found
