"""Define the names of the columns of a manifest, for training and scoring alike."""

import unicodedata
from collections.abc import Collection

NAMES = {
    "path": ("path", "file", "image", "uri", "filename", "file_name", "file_path", "image_path"),
    "label": ("label",),
    "patient": (
        "patient",
        "patient_id",
        "patientid",
        "patient id",
        "subject",
        "subject_id",
        "group",
    ),
    "study": ("study", "study_id", "studyid", "study id"),
    "split": ("split",),
}
"""The names of each role's column, in order of preference."""


_BLANK = ("", "nan", "n/a", "null", "<na>")


def normalise_name(name: str) -> str:
    """Return a column's name in lower case, without surrounding space."""
    return name.strip().lower()


def find_roles(header: Collection[str]) -> dict[str, str]:
    """Return the column of each role in a header of normalised names; omit absent roles."""
    return {
        role: name for role, names in NAMES.items() for name in reversed(names) if name in header
    }


def is_blank(cell: str) -> bool:
    """Return whether a cell is blank, or holds what programs write for a blank one."""
    return cell.strip().lower() in _BLANK


def normalise_value(cell: str) -> str:
    """Return the name of a patient or study in one spelling, however a program wrote it.

    That is Unicode's composed form (NFC), with single spaces.
    """
    return unicodedata.normalize("NFC", " ".join(cell.split()))


def join_study(patient: str, study: str) -> str:
    """Return a study's name that is unique among patients, whose studies often share numbers.

    In the patient's name, a slash becomes `%2F` and a percent sign `%25`, so that the first slash
    ends it. Both are spelt as by `normalise_value`.
    """
    escaped = patient.replace("%", "%25").replace("/", "%2F")
    return "/".join(normalise_value(part) for part in (escaped, study) if part)
