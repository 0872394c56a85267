"""List the radiographs of a source: five layouts, local or `gs://`."""

import collections
import dataclasses
import posixpath
from collections.abc import Iterable, Sequence

from trainer import storage
from trainer.dataset import fracatlas, graz, manifest, mura
from trainer.dataset.example import LABELS, Example
from trainer.dataset.listing import (
    OUTSIDE_LAYOUT,
    Listing,
    Omission,
    list_files,
    split_off_unencodable,
)
from trainer.errors import ConfigError, DataError
from trainer.files import mura_paths, study_folders, urls
from trainer.files.study_folders import LABEL_WORDS, SPLIT_WORDS
from trainer.options import LAYOUTS, PrepareOptions
from trainer.program.flag_types import SCHEMES


def list_source(source: str, layout: str, body_parts: Sequence[str]) -> Listing:
    """List the files of `source`, each once. No image is opened.

    Args:
      source: folder, or the CSV file of a manifest; local or `gs://`.
      layout: `mura`, `folders`, `manifest`, `fracatlas` or `graz`.
      body_parts: body parts of MURA, such as `XR_HUMERUS`, or of FracAtlas, or `all`; other sources
        have none.

    Raises:
      ConfigError: the layout is unknown, or the source lacks a body part or has none.
      DataError: the source is missing, empty, or contradicts its layout, or a manifest lists files
        on storage that can't be read.
    """
    root = find_root(source, layout)
    if layout == "manifest":
        listing = manifest.list_source(source, root, body_parts)
        if not listing.body_parts:
            _check_no_body_part(body_parts, f"{source} is not a list of MURA, and")
        _check_schemes(source, listing.examples)
        return listing
    if layout not in ("mura", "fracatlas"):
        _check_no_body_part(body_parts, f"the layout {layout}")
    paths, unencodable = split_off_unencodable(list_files(root))
    if layout == "mura":
        listing = mura.list_source(root, paths, body_parts)
    elif layout == "fracatlas":
        listing = fracatlas.list_source(root, paths, body_parts)
    elif layout == "graz":
        listing = graz.list_source(root, paths)
    else:
        listing = _list(root, paths)
    omissions = sorted([*listing.omissions, *unencodable], key=lambda omission: omission.path)
    return dataclasses.replace(listing, omissions=omissions)


def _check_schemes(source: str, examples: Iterable[Example]) -> None:
    """Raise `DataError` if a file of a manifest has an address that can't be read."""
    for scheme in (urls.split_url(example.uri)[0] for example in examples):
        if scheme and scheme not in SCHEMES:
            raise DataError(
                f"{source}: expected paths and {SCHEMES[0]}:// addresses, got one of {scheme}://; "
                "copy the files to this machine or to a bucket"
            )


def _check_no_body_part(body_parts: Sequence[str], what: str) -> None:
    """Raise `ConfigError` if parts are asked for, other than by default, of what has none."""
    if asked := {*body_parts} - {mura.ALL_BODY_PARTS, *PrepareOptions.body_parts}:
        raise ConfigError(
            f"--body_parts={','.join(sorted(asked))}: {what} has no body parts to choose from; "
            "omit the flag"
        )


def find_root(source: str, layout: str) -> str:
    """Return the folder that paths are relative to: the source, or the folder of a manifest."""
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    return posixpath.dirname(source) if layout == "manifest" else source.rstrip("/") or source


def is_simulated(source: str, layout: str) -> bool:
    """Return whether a file SIMULATED.txt in its root marks the source as simulated."""
    root = find_root(source, layout)
    return any(
        storage.exists(posixpath.join(root, *folder, "SIMULATED.txt"))
        for folder in ((), (mura_paths.ROOT,))
    )


def _list(root: str, paths: Sequence[str]) -> Listing:
    """Return the files of class folders: `positive/...` or `train/positive/...`."""
    examples: list[Example] = []
    outside: list[str] = []
    for path in paths:
        first, second, *_ = [*path.lower().split("/")[:-1], "", ""]
        split = SPLIT_WORDS.get(first) if second in LABEL_WORDS else None
        label = LABEL_WORDS.get(second if split else first)
        if label is None:
            outside.append(path)
            continue
        uri = posixpath.join(root, path)
        examples.append(Example(path, uri, label, patient_id=path, study_id=path, split=split))
    examples = _group_by_folder(examples)
    if not examples:
        folders = collections.Counter(path.split("/")[0] for path in outside)
        names = ", ".join(name for name, _ in folders.most_common(5))
        raise DataError(
            f"{root} holds no class folders with images: expected {' and '.join(LABELS)} "
            f"(or 0 and 1, normal and abnormal), found {names or 'no image'}; "
            f"{_advise(root, outside)}"
        )
    detail = f"the file lies in none of the class folders {' and '.join(LABELS)}"
    return Listing(examples, [Omission(path, OUTSIDE_LAYOUT, detail) for path in outside])


def _group_by_folder(examples: Sequence[Example]) -> list[Example]:
    """Make the images of a folder one study and patient, unless it holds too many for one.

    Where MURA's folders name patients, these count.
    """
    oversized = study_folders.find_oversized(example.path for example in examples)
    studies = [
        study_folders.find_study(
            example.path, example.uri, study_folders.find_folder(example.path) not in oversized
        )
        for example in examples
    ]
    return [
        dataclasses.replace(
            example,
            patient_id=study_folders.find_patient(example.path, example.uri) or study,
            study_id=study,
        )
        if study
        else example
        for example, study in zip(examples, studies, strict=True)
    ]


def _advise(root: str, paths: Iterable[str]) -> str:
    """Return what to do about class folders that lie elsewhere or have other names."""
    parts = [path.split("/")[:-1] for path in paths]
    above = {
        "/".join(p[:i]) for p in parts for i, name in enumerate(p) if name.lower() in LABEL_WORDS
    }
    if len(above) == 1:
        return f"name {posixpath.join(root, *above)} as the source"
    return "rename them, or list the files in a CSV file path,label for the layout manifest"
