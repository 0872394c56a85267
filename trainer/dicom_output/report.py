"""Make a structured report (PS3.16 TID 1500) of what the model says of a radiograph."""

from typing import Any

import pydicom
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from trainer.dicom_output import identity

_SCHEME = "99HUMERUS"
PROBABILITY = Code("PROBABILITY", _SCHEME, "Calibrated probability of an abnormality")
CALL = Code("CALL", _SCHEME, "Call of the model")
CALLS = {
    "positive": codes.SCT.Abnormal,
    "negative": codes.SCT.Normal,
    "uncertain": codes.SCT.Indeterminate,
}
"""Code of each label of a row."""
_DECIMALS = 6


def make(
    source: pydicom.Dataset,
    label: str,
    probability: float,
    parameters: dict[str, Any],
    settings: list[Any],
    frame: int | None,
    created: str,
) -> pydicom.Dataset:
    """Return the data set of an Enhanced SR document, complete, preliminary and not verified.

    Args:
      source: as of `source_header.parse`; patient and study are copied from it.
      label, probability: as in the row.
      parameters: what the report names as the parameters of the algorithm.
      settings: as of `identity.name_instance`; the model's id comes first.
      frame: index of the source's frame from 0; None for the only one.
      created: as of `identity.set_dates`.
    """
    model = str(settings[0])
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=identity.make_uid("model", model),
            name=identity.MANUFACTURER,
            model_name=model,
        ),
    )
    image = sr.SourceImageForMeasurementGroup(
        source.SOPClassUID,
        source.SOPInstanceUID,
        referenced_frame_numbers=None if frame is None else [frame + 1],
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=identity.make_uid("group", source.SOPInstanceUID, *settings),
            identifier=identity.MANUFACTURER,
        ),
        algorithm_id=sr.AlgorithmIdentification(
            name=identity.MANUFACTURER,
            version=model,
            parameters=[f"{name}={value}" for name, value in parameters.items()],
        ),
        measurements=[
            sr.Measurement(
                PROBABILITY, round(probability, _DECIMALS), Code("1", "UCUM", "no units")
            )
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(CALL, CALLS[label])],
        source_images=[image],
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en", "RFC5646", "English")
        ),
    )
    document = sr.EnhancedSR(
        evidence=[source],
        content=content,
        is_complete=True,
        **identity.name_instance(source, "sr", settings),
    )
    identity.set_dates(document, source, created)
    return document
