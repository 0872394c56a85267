"""Take from a DICOM file what results derived from it must repeat: patient, study and references.

This holds identifiers, so that it is read only where somebody asks for DICOM results.
"""

import io
from typing import Any

import pydicom
from pydicom import config, uid
from pydicom.valuerep import validate_value

from trainer.decoding.dicom_containment import contain_errors
from trainer.decoding.refusal import RadiographError

MANDATORY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_IDENTITY = ("PatientID", "PatientName")
_EMPTY_IF_ABSENT = (
    *_IDENTITY,
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "InstanceNumber",
    "Laterality",
    "PatientOrientation",
)
"""Type 2 attributes of the results (PS3.3 C.7): present, but empty where they are unknown."""
_OPTIONAL = (
    *("IssuerOfPatientID", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "StudyDescription", "TimezoneOffsetFromUTC"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName"),
    *("ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName"),
    *("DeviceSerialNumber", "SoftwareVersions", "BodyPartExamined", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime"),
    *("SeriesDate", "SeriesTime", "NumberOfFrames", "Rows", "Columns"),
)
_MAX_BYTES = 1 << 18
"""More than any honest set of these attributes takes."""


def extract(contents: bytes) -> bytes | None:
    """Return the attributes as a DICOM data set in UTF-8, or None where results cannot refer to it.

    They cannot where a UID of `MANDATORY` is missing or malformed, or where the patient's name or
    number cannot be read. A result filed under the wrong patient is worse than none. Any other
    malformed attribute is omitted.

    Args:
      contents: of a DICOM file that has been decoded.
    """
    try:
        with contain_errors():
            found = _select(
                pydicom.dcmread(io.BytesIO(contents), stop_before_pixels=True, force=True)
            )
            buffer = io.BytesIO()
            if found is not None:
                pydicom.dcmwrite(buffer, found, implicit_vr=False, little_endian=True)
    except RadiographError:
        return None
    if found is None or buffer.tell() > _MAX_BYTES:
        return None
    return buffer.getvalue()


def parse(header: bytes) -> pydicom.Dataset:
    """Return the data set that `extract` wrote."""
    return pydicom.dcmread(io.BytesIO(header), force=True)


def _select(dataset: pydicom.Dataset) -> pydicom.Dataset | None:
    header = pydicom.Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*MANDATORY, *_EMPTY_IF_ABSENT, *_OPTIONAL):
        value, is_valid = _read(dataset, keyword)
        if not is_valid and keyword in (*MANDATORY, *_IDENTITY):
            return None
        if is_valid and value is not None:
            setattr(header, keyword, value)
        elif keyword in MANDATORY:
            return None
        elif keyword in _EMPTY_IF_ABSENT:
            setattr(header, keyword, None)
    return header


def _read(dataset: pydicom.Dataset, keyword: str) -> tuple[Any, bool]:
    """Return the value of an element (None where it is absent or empty), and whether it is valid.

    Text becomes that of Python, free of the character set of the file.
    """
    if keyword not in dataset:
        return None, True
    try:
        element = dataset[keyword]
        if element.is_empty:
            return None, True
        values = [element.value] if element.VM == 1 else list(element.value)
        if element.VR in ("US", "IS", "DS"):
            return element.value, True
        texts = [str(value).strip(" \0") for value in values]
        for text in texts:
            validate_value(element.VR, text, config.RAISE)
    except Exception:  # pydicom raises many types for malformed elements
        return None, False
    # Python's sign for bytes that the announced character set does not have.
    is_valid = not any("\ufffd" in text for text in texts)
    if keyword in MANDATORY:
        is_valid = len(texts) == 1 and uid.UID(texts[0]).is_valid
    return texts[0] if len(texts) == 1 else texts, is_valid
