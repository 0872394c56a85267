"""Decide which folder stands for a study, by one rule for training and for scoring.

A folder stands for the study of the images in it. The root of a source doesn't, nor do folders that
sort images by label or split, such as `train/positive`.
"""

import posixpath

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

_SORTING = {*LABEL_WORDS, *SPLIT_WORDS}


def find_folder(path: str) -> str:
    """Return the folder that stands for the study of an image, "" where none does.

    Args:
      path: path of the image relative to its source.
    """
    folder = posixpath.dirname(path)
    return "" if is_sorting(folder) else folder


def is_sorting(folder: str) -> bool:
    """Return whether a relative path is the root, or all its folders sort by label or split."""
    return not folder or all(name.lower() in _SORTING for name in folder.split("/"))
