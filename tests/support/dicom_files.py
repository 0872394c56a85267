"""Make DICOM files with chosen attributes and planted patient data, and a collection of them."""

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pydicom
from pydicom import encaps, uid
from pydicom.dataset import Dataset, FileMetaDataset

from tests.support.pictures import encode, patched, picture

# Planted in every DICOM file: none of these may ever be seen in an output, a log or an error.
PATIENT = {
    "PatientName": "Planted^Patient",
    "PatientID": "PLANTED-ID-4711",
    "PatientBirthDate": "19010203",
    "ReferringPhysicianName": "Planted^Physician",
    "InstitutionName": "Planted Hospital",
    "StudyDescription": "Planted description",
    "PatientComments": "Planted comment",
    "AccessionNumber": "PLANTEDACC",
}
STUDY_UID = "1.2.826.0.1.3680043.8.498.1"


def dicom_file(
    pixels: np.ndarray | None,
    syntax: str = uid.ExplicitVRLittleEndian,
    preamble: bool = True,
    elements: Mapping[str, pydicom.DataElement] = MappingProxyType({}),
    **attributes: Any,
) -> bytes:
    """Return a computed-radiography DICOM file with planted patient attributes.

    Args:
      pixels: uint8, uint16 or int16 [h, w], or uint8 [h, w, 3]; None for a file without pixel data.
      syntax: transfer syntax. The native ones, RLE, JPEG-LS and JPEG 2000 are encoded; others are
        only a label.
      preamble: False omits preamble, prefix and file meta information.
      elements: elements with a value representation of their own, by keyword.
      **attributes: DICOM keywords that replace or complete the usual ones; None removes one.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        uid.ComputedRadiographyImageStorage,
        STUDY_UID + ".1.1",
    )
    usual: dict[str, Any] = {
        "Modality": "CR",
        "BodyPartExamined": "HUMERUS",
        "ViewPosition": "AP",
        "StudyInstanceUID": STUDY_UID,
        **PATIENT,
    }
    if pixels is not None:
        bits, colour = 8 * pixels.itemsize, pixels.ndim == 3
        usual |= {
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 3 if colour else 1,
        }
        usual |= {
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        usual |= {"PhotometricInterpretation": "RGB" if colour else "MONOCHROME2"}
        usual |= {"PlanarConfiguration": 0} if colour else {}
    # The representation comes first: pydicom takes the sign of other attributes from it.
    for keyword in sorted(usual | attributes, key=lambda keyword: keyword != "PixelRepresentation"):
        value = (usual | attributes)[keyword]
        if value is not None:
            setattr(dataset, keyword, value)
    for element in elements.values():
        dataset[element.tag] = element
    target = uid.UID(syntax)
    little = target != uid.ExplicitVRBigEndian
    if pixels is not None and "PixelData" not in attributes:
        content = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
        if target in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
            dataset.compress(target, generate_instance_uid=False)
    elif "PixelData" in attributes:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = target.is_encapsulated
    dataset.file_meta.TransferSyntaxUID = target
    buffer = io.BytesIO()
    if preamble:
        known = not target.is_private and target in uid.AllTransferSyntaxes
        how = {} if known else {"implicit_vr": False, "little_endian": True}
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True, **how)
    else:
        del dataset.file_meta
        pydicom.dcmwrite(
            buffer,
            dataset,
            implicit_vr=target.is_implicit_VR,
            little_endian=True,
            enforce_file_format=False,
        )
    return buffer.getvalue()


def good_dicom_files() -> dict[str, bytes]:
    deep = picture().astype(np.uint16) * 16
    twelve = {"BitsStored": 12, "HighBit": 11}
    syntaxes = {
        "implicit": uid.ImplicitVRLittleEndian,
        "explicit": uid.ExplicitVRLittleEndian,
        "big endian": uid.ExplicitVRBigEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
        "rle": uid.RLELossless,
        "jpeg-ls": uid.JPEGLSLossless,
        "jpeg 2000": uid.JPEG2000Lossless,
    }
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    frame = encaps.encapsulate([encode(picture(), "JPEG")])
    files = {
        f"{name}.dcm": dicom_file(deep, syntax, **twelve, **window)
        for name, syntax in syntaxes.items()
    }
    return files | {
        "jpeg baseline.dcm": dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=frame),
        "eight bits.dcm": dicom_file(picture()),
        "no window.dcm": dicom_file(deep, **twelve),
        "white is zero.dcm": dicom_file(
            4095 - deep, PhotometricInterpretation="MONOCHROME1", **twelve, **window
        ),
        "signed with padding.dcm": dicom_file(
            deep.astype(np.int16) - 2000,
            PixelPaddingValue=-2000,
            RescaleSlope=1,
            RescaleIntercept=0,
        ),
        "rgb.dcm": dicom_file(np.dstack([picture()] * 3)),
        "no preamble.dcm": dicom_file(deep, preamble=False, **twelve),
        "no preamble implicit": dicom_file(
            deep, uid.ImplicitVRLittleEndian, preamble=False, **twelve
        ),
        "dual with a tiff header.dcm": encode(picture(), "TIFF")[:128]
        + dicom_file(deep, **twelve)[128:],
        "more pixel data than announced.dcm": dicom_file(
            picture(), PixelData=picture().tobytes() + b"\0" * 100
        ),
        "window in words.dcm": dicom_file(
            deep, **twelve, WindowCenter=1111, WindowWidth=2222
        ).replace(b"1111.0", b"AUTO  "),
        "almost square pixels.dcm": dicom_file(
            deep, PixelSpacing=[0.1435, 0.1436], PixelAspectRatio=[1, 1], **twelve
        ),
    }


def bad_dicom_files() -> dict[str, tuple[bytes, str]]:
    deep = picture().astype(np.uint16)
    wrong_size = encaps.encapsulate([encode(np.zeros((4000, 4000), np.uint8), "JPEG")])
    # A scan header that sequential JPEG forbids; a real scanner writes it, and no decoder takes it.
    extended = patched(encode(picture(), "JPEG"), b"\xff\xc0", 1, b"\xc1\0\x0b\x0c")
    extended = encaps.encapsulate([patched(extended, b"\xff\xda\0\x08", 8, b"\0")])
    garbage = encaps.encapsulate([np.random.default_rng(5).bytes(400)])
    return {
        "no pixel data.dcm": (dicom_file(None), "bad_dicom"),
        "no rows.dcm": (dicom_file(picture(), Rows=None), "bad_dicom"),
        "zero columns.dcm": (dicom_file(picture(), Columns=0), "bad_dicom"),
        "no photometric interpretation.dcm": (
            dicom_file(picture(), PhotometricInterpretation=None),
            "bad_dicom",
        ),
        "three samples in monochrome.dcm": (dicom_file(picture(), SamplesPerPixel=3), "bad_dicom"),
        "more bits stored than allocated.dcm": (dicom_file(picture(), BitsStored=12), "bad_dicom"),
        "garbage after the prefix.dcm": (
            bytes(128) + b"DICM" + np.random.default_rng(4).bytes(500),
            "bad_dicom",
        ),
        "nothing after the prefix.dcm": (bytes(128) + b"DICM", "bad_dicom"),
        "encoded frame of another size.dcm": (
            dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=wrong_size),
            "bad_dicom",
        ),
        "encoded frame of garbage.dcm": (
            dicom_file(picture(), uid.JPEG2000Lossless, PixelData=garbage),
            "bad_dicom",
        ),
        "rescale slope of zero.dcm": (
            dicom_file(deep, RescaleSlope=0, RescaleIntercept=3),
            "bad_dicom",
        ),
        "oblong pixels.dcm": (dicom_file(deep, PixelAspectRatio=[2, 1]), "unsupported"),
        "oblong spacing.dcm": (dicom_file(deep, ImagerPixelSpacing=[0.1, 0.2]), "unsupported"),
        "thirty-two bits.dcm": (dicom_file(deep.astype(np.uint32)), "unsupported"),
        "unknown transfer syntax.dcm": (
            dicom_file(picture(), "1.2.826.0.1.3680043.8.498.99"),
            "unsupported",
        ),
        "video transfer syntax.dcm": (
            dicom_file(picture(), uid.MPEG2MPML, PixelData=garbage),
            "unsupported",
        ),
        "jpeg extended.dcm": (
            dicom_file(deep, uid.JPEGExtended12Bit, PixelData=extended, BitsStored=12, HighBit=11),
            "unsupported",
        ),
    }
