"""Decide which images make a study by their paths, by one rule for training and for scoring.

MURA's study folders name studies wherever they are. In a tree of files, any other folder stands for
the study of the images in it, unless it holds more than a dozen. The root of a source doesn't, nor
do folders that sort images by label or split, such as `train/positive`. In a list of files folders
say nothing: without a column for studies, each image is one.

MURA's study folders also name patients, who may have several studies.
"""

import collections
import posixpath
from collections.abc import Iterable, Mapping

from trainer.files import mura_paths

LABEL_WORDS = {"0": 0, "negative": 0, "normal": 0, "1": 1, "positive": 1, "abnormal": 1}
SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
MANY_IMAGES = 12
"""A folder with more images is hardly one examination of the upper arm."""
_NO_IMAGES = (
    ".csv", ".db", ".htm", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".tsv", ".txt", ".xml",
    ".yaml", ".yml",
)  # fmt: skip
"""Endings of files, such as sidecars, that may lie beside images but are not images."""

_SORTING = {*LABEL_WORDS, *SPLIT_WORDS}


def find_study(path: str, uri: str, is_grouped: bool) -> str:
    """Return the study that the place of an image names, "" where the image is one by itself.

    Args:
      path: path of the image relative to its source.
      uri: its full path or URI.
      is_grouped: whether its folder may stand for a study: it was found in a tree, not in a list,
        and the folder is none of `find_oversized`.
    """
    return mura_paths.find_study(path, uri) or (find_folder(path) if is_grouped else "")


def find_patient(path: str, uri: str) -> str:
    """Return the patient that MURA's folders name, "" where there are none.

    A number is the same person under all labels, splits and body parts of one folder.

    Args:
      path, uri: as for `find_study`.
    """
    *folders, number = mura_paths.find_study(path, uri).split("/")[:-1] or [""]
    above = [name for name in folders if not is_sorting(name) and not mura_paths.is_part(name)]
    return "/".join([*above, number])


def find_oversized(paths: Iterable[str]) -> dict[str, int]:
    """Return the folders that hold too many images for one study, with their numbers of images.

    Args:
      paths: path of every file of a tree, or of all that lie in some of its folders. Those that
        end in one of `_NO_IMAGES` are not counted.
    """
    images = collections.Counter(
        find_folder(path) for path in set(paths) if not path.lower().endswith(_NO_IMAGES)
    )
    return {folder: number for folder, number in images.items() if folder and number > MANY_IMAGES}


def describe_oversized(folders: Mapping[str, int]) -> str:
    """Return what is wrong with folders that `find_oversized` returned, as the start of a message.

    For example: `1 folder (positive/ward, 13 images) is too large to be one examination`.
    """
    largest = max(folders, key=lambda folder: (folders[folder], folder))
    size = f"{largest}, {folders[largest]} images"
    if len(folders) == 1:
        return f"1 folder ({size}) is too large to be one examination"
    return f"{len(folders)} folders (the largest: {size}) are too large to be one examination each"


def find_folder(path: str) -> str:
    """Return the folder of an image, "" where that can't stand for a study.

    Args:
      path: path of the image relative to its source.
    """
    folder = posixpath.dirname(path)
    return "" if is_sorting(folder) else folder


def is_sorting(folder: str) -> bool:
    """Return whether a relative path is the root, or all its folders sort by label or split."""
    return not folder or all(name.lower() in _SORTING for name in folder.split("/"))
