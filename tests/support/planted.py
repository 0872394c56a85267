"""Make image files with identifiers in every place that a format has for text, complete and
damaged.
"""

import io
import warnings

import numpy as np
import pydicom
from PIL import Image, PngImagePlugin
from pydicom import encaps, uid
from pydicom.dataset import Dataset

from tests.support.dicom_files import dicom_file
from tests.support.pictures import encode, picture

# Stands in every planted text, whatever the case, and nowhere else.
WORD = "Qzplant"
BIRTH_DATE = "19010203"
UID_ROOT = "1.2.826.0.1.3680043.8.498.471147114711"
SECRETS = (WORD, BIRTH_DATE, UID_ROOT)

_ATTRIBUTES = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": f"{WORD}^Zoë",
    "PatientID": f"{WORD.upper()}-ID",
    "PatientBirthDate": BIRTH_DATE,
    "PatientAddress": f"{WORD} street 1",
    "PatientComments": f"{WORD} comment",
    "OtherPatientIDs": f"{WORD}-other",
    "AccessionNumber": f"{WORD.upper()}ACC",
    "ReferringPhysicianName": f"{WORD}^Physician",
    "OperatorsName": f"{WORD}^Operator",
    "InstitutionName": f"{WORD} Hospital",
    "StationName": f"{WORD}st",
    "DeviceSerialNumber": f"{WORD}-serial",
    "StudyDescription": f"{WORD} study",
    "SeriesDescription": f"{WORD} series",
    "ProtocolName": f"{WORD} protocol",
    "ImageComments": f"{WORD} image",
    "StudyID": f"{WORD}-sid",
    "StudyInstanceUID": f"{UID_ROOT}.1",
    "SeriesInstanceUID": f"{UID_ROOT}.2",
    "FrameOfReferenceUID": f"{UID_ROOT}.3",
}
_IN_CODES = {
    "Modality": f"CR of {WORD}",
    "BodyPartExamined": f"arm of {WORD}",
    "ViewPosition": WORD,
    "PresentationLUTShape": WORD,
    "VOILUTFunction": WORD,
    "WindowCenterWidthExplanation": WORD,
    "LossyImageCompressionMethod": WORD,
}

_IN_CAPITALS = {
    "Modality": WORD.upper(),
    "BodyPartExamined": f"{WORD.upper()} JO 01",
    "ViewPosition": f"MRN {WORD.upper()} 2",
}


def planted_dicom(
    pixels: np.ndarray | None = None, syntax: str = uid.ExplicitVRLittleEndian, **attributes
) -> bytes:
    """Make a DICOM file full of planted identifiers, also in a sequence, a private block and the
    file meta information.
    """
    pixels = picture().astype(np.uint16) * 16 if pixels is None else pixels
    request = Dataset()
    request.RequestedProcedureDescription = f"{WORD} procedure"
    request.RequestedProcedureID = f"{WORD}-rp"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says that some of them break the rules
        data = dicom_file(
            pixels, syntax, **(_ATTRIBUTES | {"RequestAttributesSequence": [request]} | attributes)
        )
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.private_block(0x0009, f"{WORD} private", create=True).add_new(
            1, "LO", f"{WORD} value"
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{UID_ROOT}.4"
        dataset.file_meta.SourceApplicationEntityTitle = WORD
        buffer = io.BytesIO()
        dataset.save_as(buffer)
    return buffer.getvalue()


def _dicom_files() -> dict[str, bytes]:
    deep = picture().astype(np.uint16) * 16
    plain = planted_dicom()
    garbage = encaps.encapsulate([WORD.encode() * 40])
    files = {
        "plain.dcm": plain,
        "codes.dcm": planted_dicom(**_IN_CODES),
        "capitals.dcm": planted_dicom(**_IN_CAPITALS),
        "rle.dcm": planted_dicom(syntax=uid.RLELossless),
        "film.dcm": planted_dicom(np.vstack([deep, deep[::-1]]), NumberOfFrames=2, Rows=len(deep)),
        "broken values.dcm": plain.replace(BIRTH_DATE.encode(), b"Qzplant!").replace(
            b"MONOCHROME2", b"Qzplant    "
        ),
        "photometric.dcm": plain.replace(b"MONOCHROME2 ", b"QZPLANT     "),
        "syntax.dcm": plain.replace(b"1.2.840.10008.1.2.1\0", b"1.2.826.0.1.3680043\0").replace(
            b"1.2.840.1000", b"Qzplant.1000", 1
        ),
        "unknown syntax.dcm": planted_dicom(syntax=uid.ExplicitVRLittleEndian).replace(
            b"1.2.840.10008.1.2.1\0", UID_ROOT[-19:].encode() + b"\0"
        ),
        "garbage.dcm": planted_dicom(picture(), uid.JPEG2000Lossless, PixelData=garbage),
        "frame of text.dcm": planted_dicom(picture(), uid.JPEGBaseline8Bit, PixelData=garbage),
        "no rows.dcm": plain.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00LO"),
        "text in a number.dcm": planted_dicom(WindowCenter=1, WindowWidth=2).replace(
            b"DS\x02\x001 ", b"DS\x02\x00Qz"
        ),
    }
    cuts = {
        f"cut at {length}.dcm": plain[:length]
        for length in range(140, len(plain), len(plain) // 20)
    }
    return files | cuts


def _picture_files() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9C9B):  # description, artist, copyright, Windows' title
        exif[tag] = f"{WORD} of a tag" if tag != 0x9C9B else WORD.encode("utf-16-le")
    exif.get_ifd(0x8769)[0x9286] = f"ASCII\0\0\0{WORD} of a comment"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("PatientName", f"{WORD} Zoë")
    texts.add_itxt("Comment", f"{WORD} ü", zip=True)
    texts.add_text("Title", WORD * 9, zip=True)
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{WORD}</x:xmpmeta>".encode()
    whole = {
        "texts.png": encode(grey, "PNG", pnginfo=texts, exif=exif),
        "tags.tif": encode(
            grey,
            "TIFF",
            tiffinfo={270: f"{WORD} ä", 315: WORD, 305: WORD, 65000: f"{WORD} private"},
        ),
        "lzw.tif": encode(
            grey, "TIFF", tiffinfo={270: WORD, 65000: f"{WORD} private"}, compression="tiff_lzw"
        ),
        "exif.jpg": encode(grey, "JPEG", exif=exif, comment=f"{WORD} comment", xmp=xmp),
        "exif.webp": encode(grey.convert("RGB"), "WEBP", exif=exif, xmp=xmp),
        "text.bmp": encode(grey, "BMP") + WORD.encode(),
    }
    damaged = {}
    random = np.random.default_rng(7)
    for name, data in whole.items():
        for length in range(10, len(data), max(1, len(data) // 12)):
            damaged[f"cut at {length} {name}"] = data[:length]
        for number in range(12):
            flipped = bytearray(data)
            for place in random.integers(2, min(len(data), 1500), 3):
                flipped[place] ^= 1 << int(random.integers(8))
            damaged[f"damage {number} {name}"] = bytes(flipped)
    return (
        whole
        | damaged
        | {"note.txt": WORD.encode("utf-16"), "page.html": f"<html>{WORD}</html>".encode()}
    )


def planted_files() -> dict[str, bytes]:
    """Return the content of each file by its name; no name contains a planted word."""
    return _dicom_files() | _picture_files()


def found_in(content: bytes) -> list[str]:
    """Which of the secrets stand in some bytes, in UTF-8, Latin-1 or UTF-16, in any case."""
    lower = content.lower()
    return [
        secret
        for secret in SECRETS
        if any(
            secret.lower().encode(coding) in lower
            for coding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
        )
    ]
