"""What the columns of a manifest may be called, for training and for scoring alike."""

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


def plain(name: str) -> str:
    """A column's name as it is compared: neither case nor space around it counts."""
    return name.strip().lower()


def roles(header: Collection[str]) -> dict[str, str]:
    """Role -> the column that plays it, of a header of plain names; roles that nobody plays are left out."""
    return {
        role: name for role, names in NAMES.items() for name in reversed(names) if name in header
    }


def study(patient: str, study: str) -> str:
    """A study's name among those of all patients: studies are often numbered anew for each."""
    return "/".join(part for part in (patient, study) if part)
