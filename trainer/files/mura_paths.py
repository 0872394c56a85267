"""Recognise the paths of MURA, in its folders and in its lists.

MURA's folders are `MURA-v1.1/train/XR_HUMERUS/patient00001/study1_positive/image1.png`. Some copies
lack the level `MURA-v1.1` or `XR_HUMERUS`.
"""

import re

ROOT = "MURA-v1.1"
STUDY_PATH = re.compile(
    rf"(?<![^/])(?P<root>{re.escape(ROOT)}/)?(?P<split>train|valid)/(?:(?P<part>XR_[A-Z]+)/)?"
    r"(?P<patient>patient\d+)/(?P<study>study\d+)_(?P<label>negative|positive)/?$",
    re.IGNORECASE,
)
IMAGE_PATH = re.compile(STUDY_PATH.pattern.removesuffix("/?$") + "/[^/]+$", re.IGNORECASE)

_PART = re.compile(r"XR_[A-Z]+", re.IGNORECASE)
_STUDY_FOLDER = re.compile(r"(?:.*/)?patient\d+/study\d+[^/]*(?=/)", re.IGNORECASE)


def is_listed(path: str) -> bool:
    """Return whether `path` is an image or a study in MURA's layout, with folders above or not."""
    return bool(IMAGE_PATH.search(path) or STUDY_PATH.search(path))


def is_part(folder: str) -> bool:
    """Return whether a folder has the name of a body part of MURA, such as `XR_HUMERUS`."""
    return bool(_PART.fullmatch(folder))


def find_study(path: str, uri: str) -> str:
    """Return the path of a file up to MURA's `patientNNNNN/studyK`, "" where there is none.

    Args:
      path: path of the file relative to its source, which may lie within a patient's folder.
      uri: its full path or URI.
    """
    if match := _STUDY_FOLDER.match(path):
        return match[0]
    inside = _STUDY_FOLDER.match(uri)
    return "/".join(inside[0].split("/")[-2:]) if inside else ""
