"""Identify results in DICOM: UIDs that follow from the source, series, dates and texts."""

import hashlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pydicom

MANUFACTURER = "humerus"
DESCRIPTIONS = {
    "sc": "humerus: class activation map",
    "sr": "humerus: result of the model",
}
"""SeriesDescription of each kind of result."""
_SERIES_NUMBERS = {"sc": 9001, "sr": 9002}
_DATES = ("ContentDate", "AcquisitionDate", "SeriesDate", "StudyDate")


def make_uid(*parts: Any) -> str:
    """Return the UID of a result that follows from `parts`, JSON-able values.

    It is a UUID of version 8 (RFC 9562) below 2.25 (PS3.5 B.2), made of a SHA-256.
    """
    digest = bytearray(hashlib.sha256(json.dumps(parts).encode("utf-8")).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"


def name_instance(source: "pydicom.Dataset", kind: str, settings: list[Any]) -> dict[str, Any]:
    """Return the arguments of highdicom that name a result, equal for equal arguments.

    The results of one kind of a series form a series.

    Args:
      source: as of `source_header.parse`.
      kind: `sc` or `sr`.
      settings: the model's id first, and all else that the content depends on.
    """
    return {
        "series_instance_uid": make_uid("series", source.SeriesInstanceUID, kind, settings[0]),
        "sop_instance_uid": make_uid("instance", source.SOPInstanceUID, kind, *settings),
        "series_number": _SERIES_NUMBERS[kind],
        "instance_number": int(source.InstanceNumber or 1),
        "series_description": DESCRIPTIONS[kind],
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "humerus-score",
        "software_versions": str(settings[0]),
        "specific_character_set": "ISO_IR 192",
    }


def set_dates(result: "pydicom.Dataset", source: "pydicom.Dataset", created: str) -> None:
    """Replace the dates of the moment, which would differ in each run, by that of the source.

    Args:
      result: a data set of highdicom.
      source: as of `source_header.parse`.
      created: when the model was made, ISO 8601; used where the source has no date.
    """
    date = next((source[name].value for name in _DATES if source.get(name)), None)
    time = next(
        (
            source[name.replace("Date", "Time")].value
            for name in _DATES
            if source.get(name) and source.get(name.replace("Date", "Time"))
        ),
        "000000",
    )
    result.ContentDate = date or re.sub(r"\D", "", created)[:8]
    result.ContentTime = time
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture"):
        result.pop(keyword, None)
    result.pop("TimeOfSecondaryCapture", None)
    for item in result.get("ContributingEquipmentSequence", ()):
        item.pop("ContributionDateTime", None)
