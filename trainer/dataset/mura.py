"""Read the layout of MURA: what the path of a radiograph says about it."""

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from absl import logging

from trainer.dataset.example import LABELS, Example
from trainer.dataset.listing import OTHER_BODY_PART, OUTSIDE_LAYOUT, Listing, Omission
from trainer.errors import ConfigError, DataError
from trainer.files.mura_paths import IMAGE_PATH

ALL_BODY_PARTS = "all"
EXAMPLE = "train/XR_HUMERUS/patient00001/study1_positive/image1.png"
_SPLITS = {"train": "train", "valid": "test"}


def list_source(root: str, paths: Sequence[str], body_parts: Sequence[str]) -> Listing:
    """Return the files of a folder in MURA's layout.

    Args:
      root: the folder.
      paths: its files, relative to it.
      body_parts: names of the body parts to take, such as `XR_HUMERUS`, or `all`.

    Raises:
      ConfigError: a body part is missing.
      DataError: the folder does not have the layout.
    """
    matches = {path: IMAGE_PATH.fullmatch(path) for path in paths}
    found = {path: match for path, match in matches.items() if match}
    outside = [path for path, match in matches.items() if not match]
    if not found:
        advice = (
            _name_trees(root, outside)
            or "class folders are the layout folders, a CSV file path,label is the layout manifest"
        )
        raise DataError(
            f"{root} holds nothing in the MURA layout: expected paths such as {EXAMPLE}, "
            f"found {outside[0] if outside else 'no image'}; {advice}"
        )
    if len({(match["root"], match["part"] is None) for match in found.values()}) > 1:
        raise DataError(
            f"{root} mixes MURA trees of different folder levels, so studies would count twice; "
            "name one of them"
        )
    taken, omissions = select_body_parts(found, body_parts, root)
    examples = [make_example(path, posixpath.join(root, path), found[path]) for path in taken]
    detail = f"the path is not one of the MURA layout, such as {EXAMPLE}"
    omissions += [Omission(path, OUTSIDE_LAYOUT, detail) for path in outside]
    return Listing(examples, omissions, body_parts)


def select_body_parts(
    found: Mapping[str, re.Match[str]], asked: Sequence[str], source: str
) -> tuple[list[str], list[Omission]]:
    """Separate the paths of the body parts that are asked for from those of others.

    Args:
      found: the match of `IMAGE_PATH` or `STUDY_PATH` by path.
      asked: names of body parts, such as `XR_HUMERUS`, or `all`.
      source: what the paths come from, for messages.

    Raises:
      ConfigError: a body part is missing.
    """
    part_of = {path: find_body_part(match) for path, match in found.items()}
    wanted = _select({*part_of.values()} - {""}, asked, source)
    taken = [path for path, part in part_of.items() if part in wanted]
    omissions = [
        Omission(path, OTHER_BODY_PART, f"{part} is not among --body_parts")
        for path, part in part_of.items()
        if part not in wanted
    ]
    return taken, omissions


def make_example(path: str, uri: str, match: re.Match[str], label: int | None = None) -> Example:
    """Return the example that a path in MURA's layout describes.

    Args:
      path, uri: see `Example`.
      match: match of `IMAGE_PATH` or `STUDY_PATH`.
      label: replaces the label of the path.
    """
    part, patient, study = find_body_part(match), match["patient"].lower(), match["study"].lower()
    return Example(
        path=path,
        uri=uri,
        label=LABELS.index(match["label"].lower()) if label is None else label,
        # A number is the same person in all body parts of MURA, so the name has no body part.
        patient_id=patient,
        study_id="/".join(filter(None, (part, patient, study))),
        split=_SPLITS[match["split"].lower()],
        attributes={"body_part": part} if part else {},
    )


def find_body_part(match: re.Match[str]) -> str:
    """Return the body part in MURA's spelling; "" in a copy without that folder level."""
    return (match["part"] or "").upper()


def _name_trees(root: str, paths: Iterable[str]) -> str:
    """Return advice if `root` lies above or within trees in MURA's layout, otherwise ""."""
    full = (posixpath.join(root, path) for path in paths)
    above = {match.string[: match.start()] for path in full if (match := IMAGE_PATH.search(path))}
    trees = sorted(folder.rstrip("/") or folder or "." for folder in above)
    return f"name {' or '.join(trees[:3])} as the source" if trees else ""


def _select(present: set[str], asked: Sequence[str], source: str) -> Collection[str]:
    """Return the body parts to take; all of a copy without the folder level of body parts."""
    wanted = {part.upper() for part in asked}
    if ALL_BODY_PARTS.upper() in wanted:
        return present or {""}
    if not present:
        logging.warning(
            "%s has no folders of body parts: all of its images are taken for %s",
            source,
            ", ".join(sorted(wanted)),
        )
        return {""}
    if missing := wanted - present:
        raise ConfigError(
            f"{source} lacks the body part {', '.join(sorted(missing))}; it holds "
            f"{', '.join(sorted(present))}, or take {ALL_BODY_PARTS!r}"
        )
    return wanted
