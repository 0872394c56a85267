"""Where radiographs come from: three layouts, local or `gs://`, each listed as `Example`s."""

import collections
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from absl import logging

from trainer import storage
from trainer.dataset import manifest
from trainer.dataset.example import LABEL_WORDS, LABELS, SPLIT_WORDS, Example
from trainer.dataset.images import list_images
from trainer.errors import ConfigError, DataError

LAYOUTS = ("mura", "folders", "manifest")
ALL_BODY_PARTS = "all"

_MURA_ROOT = "MURA-v1.1"
_MURA_PATH = re.compile(
    rf"(?<![^/])(?P<root>{re.escape(_MURA_ROOT)}/)?(?P<split>train|valid)/(?:(?P<part>XR_[A-Z]+)/)?"
    r"(?P<patient>patient\d+)/(?P<study>study\d+)_(?P<label>negative|positive)/[^/]+$",
    re.IGNORECASE,
)
_MURA_EXAMPLE = "train/XR_HUMERUS/patient00001/study1_positive/image1.png"
_MURA_SPLITS = {"train": "train", "valid": "test"}


def list_examples(source: str, layout: str, body_parts: Sequence[str]) -> list[Example]:
    """Lists every image of `source`, sorted by path, each path once. Opens no image.

    Args:
      source: folder, or the CSV file of a manifest; local or `gs://`.
      layout: `mura`, `folders` or `manifest`.
      body_parts: of the MURA layout, such as `XR_HUMERUS`, or `all`; without meaning for the others.

    Raises:
      ConfigError: an unknown layout, or a body part that the source lacks.
      DataError: the source is missing, empty, or contradicts its layout.
    """
    root = root_of(source, layout)
    if layout == "mura":
        examples = _mura(root, body_parts)
    elif layout == "folders":
        examples = _folders(root)
    else:
        examples = manifest.read(source, root)
    return sorted(examples, key=lambda example: example.path)


def root_of(source: str, layout: str) -> str:
    """The folder that paths are relative to: `source` itself, or the folder of a manifest."""
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    return posixpath.dirname(source) if layout == "manifest" else source.rstrip("/") or source


def is_simulated(source: str, layout: str) -> bool:
    """Whether the source says by a file SIMULATED.txt in its root that nobody was X-rayed for it."""
    root = root_of(source, layout)
    return any(
        storage.exists(posixpath.join(root, *folder, "SIMULATED.txt"))
        for folder in ((), (_MURA_ROOT,))
    )


def _mura(root: str, body_parts: Sequence[str]) -> Iterator[Example]:
    matches = {path: _MURA_PATH.fullmatch(path) for path in list_images(root)}
    found = {path: match for path, match in matches.items() if match}
    odd = [path for path, match in matches.items() if not match]
    if not found:
        raise DataError(
            f"{root} holds nothing in the MURA layout: expected paths such as {_MURA_EXAMPLE}, found {odd[0] if odd else 'no image'}; "
            + (
                _mura_way_out(root, odd)
                or "class folders are the layout folders, a CSV file path,label is the layout manifest"
            )
        )
    if odd:
        logging.warning(
            "%s: left out %d images outside the MURA layout, such as %s", root, len(odd), odd[0]
        )
    if len({(match["root"], match["part"] is None) for match in found.values()}) > 1:
        raise DataError(
            f"{root} mixes MURA trees of different folder levels, so studies would count twice; name one of them"
        )
    wanted = _wanted_body_parts({_part(match) for match in found.values()} - {""}, body_parts, root)
    for path, match in found.items():
        part, patient, study = _part(match), match["patient"].lower(), match["study"].lower()
        if part in wanted:
            yield Example(
                path=path,
                uri=posixpath.join(root, path),
                label=LABELS.index(match["label"].lower()),
                # In MURA one number is one person in all body parts, so the part does not belong to the name.
                patient_id=patient,
                study_id="/".join(filter(None, (part, patient, study))),
                split=_MURA_SPLITS[match["split"].lower()],
                attributes={"body_part": part} if part else {},
            )


def _part(match: re.Match[str]) -> str:
    """The body part's name in MURA's spelling; "" in a mirror without that folder level."""
    return (match["part"] or "").upper()


def _mura_way_out(root: str, paths: Iterable[str]) -> str:
    """What to do where `root` lies above or within trees in MURA's layout; "" where there are none."""
    whole = (posixpath.join(root, path) for path in paths)
    above = {match.string[: match.start()] for path in whole if (match := _MURA_PATH.search(path))}
    trees = sorted(folder.rstrip("/") or folder or "." for folder in above)
    return f"name {' or '.join(trees[:3])} as the source" if trees else ""


def _wanted_body_parts(present: set[str], asked: Sequence[str], root: str) -> Collection[str]:
    """The body parts to take; a mirror without their folder level is taken whole."""
    wanted = {part.upper() for part in asked}
    if ALL_BODY_PARTS.upper() in wanted:
        return present or {""}
    if not present:
        logging.warning(
            "%s has no folders of body parts: all of its images are taken for %s",
            root,
            ", ".join(sorted(wanted)),
        )
        return {""}
    if missing := wanted - present:
        raise ConfigError(
            f"{root} lacks the body part {', '.join(sorted(missing))}; it holds {', '.join(sorted(present))}, or take {ALL_BODY_PARTS!r}"
        )
    return wanted


def _folders(root: str) -> Iterator[Example]:
    left_out: list[str] = []
    total = 0
    for path in list_images(root):
        first, second, *_ = [*path.lower().split("/")[:-1], "", ""]
        split = SPLIT_WORDS.get(first) if second in LABEL_WORDS else None
        label = LABEL_WORDS.get(second if split else first)
        if label is None:
            left_out.append(path)
            continue
        total += 1
        yield Example(
            path, posixpath.join(root, path), label, patient_id=path, study_id=path, split=split
        )
    folders = collections.Counter(path.split("/")[0] for path in left_out)
    names = ", ".join(name for name, _ in folders.most_common(5))
    if not total:
        raise DataError(
            f"{root} holds no class folders with images: expected {' and '.join(LABELS)} (or 0 and 1, normal and abnormal), "
            f"found {names or 'no image'}; {_way_out(root, left_out)}"
        )
    if left_out:
        logging.warning(
            "%s: left out %d images outside the class folders: %s", root, len(left_out), names
        )


def _way_out(root: str, paths: Iterable[str]) -> str:
    """What to do about class folders that aren't where they should be, or have other names."""
    parts = [path.split("/")[:-1] for path in paths]
    above = {
        "/".join(p[:i]) for p in parts for i, name in enumerate(p) if name.lower() in LABEL_WORDS
    }
    if len(above) == 1:
        return f"name {posixpath.join(root, *above)} as the source"
    return "rename them, or list the files in a CSV file path,label for the layout manifest"
