"""Take from a DICOM file what results derived from it must repeat: patient, study and references.

This holds identifiers, so that it is read only where somebody asks for DICOM results.
"""

import io
import re
from typing import Any

import pydicom
from pydicom import config, uid
from pydicom.datadict import dictionary_VM
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
_TRIAL = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
_TRIAL_EMPTY_IF_ABSENT = (
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
)
"""Types 1 and 2 of the module Clinical Trial Subject (PS3.3 C.7.1.3), which may be absent."""
_OPTIONAL = (
    *("IssuerOfPatientID", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "StudyDescription", "TimezoneOffsetFromUTC"),
    *(*_TRIAL, *_TRIAL_EMPTY_IF_ABSENT, "ClinicalTrialSubjectID"),
    *("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName"),
    *("DeviceSerialNumber", "SoftwareVersions", "BodyPartExamined", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime"),
    *("SeriesDate", "SeriesTime", "NumberOfFrames", "Rows", "Columns"),
)
_ENUMERATED = {
    "PatientSex": ("M", "F", "O"),
    "Laterality": ("L", "R"),
    "ImageLaterality": ("L", "R"),
    "BurnedInAnnotation": ("YES", "NO"),
    "PatientIdentityRemoved": ("YES", "NO"),
}
"""Attributes whose values the standard lists in full (PS3.3). Those of ImageLaterality that
Laterality lacks, for both sides or none, are omitted."""
_PADDING = " \0\t\r\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEXTS_OF_ONE_LINE = ("LO", "SH", "PN", "CS")
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
    if not header.Laterality:  # digital radiographs have ImageLaterality (PS3.3 C.8.11.1)
        side, is_valid = _read(dataset, "ImageLaterality")
        header.Laterality = side if is_valid else None
    _complete_trial(header)
    if header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in header:
        del header.PatientIdentityRemoved  # without a method it is invalid (PS3.3 C.7.1.1)
    return header


def _complete_trial(header: pydicom.Dataset) -> None:
    """Add the elements that the module of a clinical trial requires; remove the module if one of
    its mandatory values is missing."""
    if all(keyword in header for keyword in (*_TRIAL, "ClinicalTrialSubjectID")):
        for keyword in _TRIAL_EMPTY_IF_ABSENT:
            if keyword not in header:
                setattr(header, keyword, None)
        return
    for keyword in _OPTIONAL:
        if keyword.startswith("ClinicalTrial"):
            header.pop(keyword, None)


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
        while len(values) > 1 and not str(values[-1]).strip(_PADDING):
            values.pop()
        multiplicity = dictionary_VM(element.tag)
        if multiplicity.isdecimal() and int(multiplicity) != len(values):
            return None, False
        if keyword == "InstanceNumber":
            return (values[0], True) if values[0] >= 0 else (None, False)
        if element.VR in ("US", "IS", "DS"):
            return element.value, True
        texts = [str(value).strip(_PADDING) for value in values]
        for text in texts:
            validate_value(element.VR, text, config.RAISE)
    except Exception:  # pydicom raises many types for malformed elements
        return None, False
    # Python's sign for bytes that the announced character set does not have.
    is_valid = not any("\ufffd" in text for text in texts)
    if element.VR in _TEXTS_OF_ONE_LINE:
        is_valid = is_valid and not any(map(_CONTROL.search, texts))
    if keyword in _ENUMERATED:
        is_valid = is_valid and texts[0] in _ENUMERATED[keyword]
    if keyword in MANDATORY:
        is_valid = len(texts) == 1 and uid.UID(texts[0]).is_valid
    return texts[0] if len(texts) == 1 else texts, is_valid
