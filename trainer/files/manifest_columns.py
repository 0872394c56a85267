"""Define the names of the columns of a manifest, for training and scoring alike."""

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


def normalise_name(name: str) -> str:
    """Return a column's name in lower case, without surrounding space."""
    return name.strip().lower()


def find_roles(header: Collection[str]) -> dict[str, str]:
    """Return the column of each role in a header of normalised names; omit absent roles."""
    return {
        role: name for role, names in NAMES.items() for name in reversed(names) if name in header
    }


def join_study(patient: str, study: str) -> str:
    """Return a study's name that is unique among patients, whose studies often share numbers."""
    return "/".join(part for part in (patient, study) if part)
