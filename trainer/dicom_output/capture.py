"""Make a Secondary Capture image of a class activation map on its radiograph."""

import numpy as np
import pydicom
from highdicom.sc import SCImage
from pydicom.sr.codedict import codes

from trainer.dicom_output import identity

_UNPAIRED = {
    *("ABDOMEN", "CHEST", "COCCYX", "CSPINE", "HEAD", "LSPINE", "MANDIBLE", "NECK", "PELVIS"),
    *("SKULL", "SPINE", "SSPINE", "STERNUM", "TSPINE", "WHOLEBODY"),
}
"""Body parts that have no side."""


def make(
    source: pydicom.Dataset,
    drawn: np.ndarray,
    settings: list[object],
    frame: int | None,
    created: str,
) -> pydicom.Dataset:
    """Return the data set of a picture.

    Args:
      source: as of `source_header.parse`; patient and study are copied from it.
      drawn: uint8 [height, width, 3] in BGR, as of `overlay.draw`.
      settings: as of `identity.name_instance`.
      frame: index of the source's frame from 0; None for the only one.
      created: as of `identity.set_dates`.
    """
    orientation = source.get("PatientOrientation")
    image = SCImage.from_ref_dataset(
        source,
        np.ascontiguousarray(drawn[..., ::-1]),
        "RGB",
        8,
        "PATIENT",
        # A placeholder: the library takes neither an empty one nor oblique ones, such as LA.
        patient_orientation=("L", "F"),
        transfer_syntax_uid=pydicom.uid.ExplicitVRLittleEndian,
        **identity.name_instance(source, "sc", settings),
    )
    image["PatientOrientation"].value = orientation
    # Required, though perhaps unknown, of a body part that may be a paired one (PS3.3 C.7.3.1).
    if source.get("Laterality") or source.get("BodyPartExamined") not in _UNPAIRED:
        image["Laterality"] = pydicom.DataElement("Laterality", "CS", source.get("Laterality"))
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.ConversionType = "WSD"
    image.DerivationDescription = (
        "Class activation map of a neural network on the radiograph; for research, not a diagnosis"
    )
    image.SourceImageSequence = [_refer(source, frame)]
    for keyword in (
        *("BodyPartExamined", "BurnedInAnnotation", "LossyImageCompression"),
        *("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    ):
        if source.get(keyword):
            setattr(image, keyword, source[keyword].value)
    identity.set_dates(image, source, created)
    return image


def _refer(source: pydicom.Dataset, frame: int | None) -> pydicom.Dataset:
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        reference.ReferencedFrameNumber = frame + 1
    purpose = pydicom.Dataset()
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    reference.PurposeOfReferenceCodeSequence = [purpose]
    return reference
