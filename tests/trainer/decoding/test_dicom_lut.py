"""Look-up tables of DICOM over a grid of their encodings, against NumPy and against dcmtk."""

import itertools

import numpy as np
import pydicom
import pytest
from pydicom import uid

from tests.support.dicom_files import dicom_file
from trainer.decoding.dicom_lut import full_scale_bits
from trainer.radiograph import RadiographError, read

SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
}
PACKINGS = {
    "8 packed": (8, 8),
    "8 in words": (8, 8),
    "12": (12, 12),
    "16": (16, 16),
    "12 as 16": (16, 12),
}
"""Declared and used number of bits of the entries."""
ENTRIES = {"256": 256, "255": 255, "65536": 65536}
FIRSTS = (0, 60, -100)
GRID = list(
    itertools.product(
        ("voi", "modality", "palette"), SYNTAXES, PACKINGS, ("OW", "US"), ENTRIES, FIRSTS
    )
)


def is_possible(kind: str, packing: str, vr: str, entries: str, first: int) -> bool:
    """Return whether such a file can be written."""
    too_long = vr == "US" and entries == "65536"  # 16 bits hold the length of a value of US
    palette = kind == "palette" and (vr == "US" or packing == "12")  # OW and 8 or 16 bits
    return not too_long and not palette


CASES = [case for case in GRID if is_possible(case[0], case[2], *case[3:])]


def make(kind: str, syntax: str, packing: str, vr: str, entries: str, first: int):
    """Make a DICOM file with one table; return it and the expected picture, float [16, 16]."""
    declared, used = PACKINGS[packing]
    length, order = ENTRIES[entries], ">" if syntax == "big endian" else "<"
    full = (1 << used) - 1
    table = np.rint(np.linspace(0, 1, length) ** 2 * full).astype(np.uint16)
    words = table
    if packing == "8 packed":
        padded = np.append(table, [0] * (length % 2)).astype(np.uint8)
        words = padded.view("<u2")  # the first entry in the lower byte
    data = words.astype(f"{order}u2").tobytes() if vr == "OW" else words.tolist()
    descriptor = [length & 0xFFFF, first & 0xFFFF, declared]
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    attributes: dict = {}
    values = stored.astype(int)
    if first < 0 and kind == "voi":
        attributes |= {"RescaleSlope": 1, "RescaleIntercept": -100}
        values = values - 100
    elif first < 0:
        stored = (stored.astype(np.int16) - 100).astype(np.int16)
        values = stored.astype(int)
    expected = table[np.clip(values - first, 0, length - 1)].astype(float)
    if kind == "palette":
        attributes |= {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour in ("Red", "Green", "Blue"):
            attributes |= element(f"{colour}PaletteColorLookupTable", descriptor, data, vr, first)
        return build(stored, syntax, attributes), expected / full * 255
    item = pydicom.Dataset()
    for keyword, found in element("LUT", descriptor, data, vr, first).items():
        item[keyword] = found
    if kind == "voi":
        return build(stored, syntax, attributes | {"VOILUTSequence": [item]}), expected / full * 255
    window = {"WindowCenter": (full + 1) / 2, "WindowWidth": full + 1}
    return build(stored, syntax, {"ModalityLUTSequence": [item], **window}), expected / full * 255


def element(prefix: str, descriptor: list[int], data, vr: str, first: int) -> dict:
    # US, also where the first value is negative: readers have to know its sign by other means.
    return {
        f"{prefix}Descriptor": pydicom.DataElement(f"{prefix}Descriptor", "US", descriptor),
        f"{prefix}Data": pydicom.DataElement(f"{prefix}Data", vr, data),
    }


def build(stored: np.ndarray, syntax: str, attributes: dict) -> bytes:
    elements = {k: v for k, v in attributes.items() if isinstance(v, pydicom.DataElement)}
    others = {k: v for k, v in attributes.items() if k not in elements}
    return dicom_file(
        stored, SYNTAXES[syntax], elements=elements, BitsStored=12, HighBit=11, **others
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(map(str, case)))
def test_a_table_gives_the_same_picture_however_it_is_encoded(case):
    data, expected = make(*case)
    assert np.abs(read(data).pixels - expected).max() <= 1


FLAGS = {"voi": ("+Wl", "1"), "modality": ("+Wi", "1"), "palette": ()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(map(str, case)))
def test_dcmtk_agrees_but_on_tables_that_use_fewer_bits_than_they_declare(case, by_dcmtk):
    kind, _, packing, _, entries, _ = case
    data, expected = make(*case)
    difference = np.abs(by_dcmtk(data, *FLAGS[kind]) - expected).max()
    # dcmtk scales 12 bits declared as 16 by 16, which leaves at most 15 of 255. The first 256 of
    # 65536 entries are black by either scale; a modality table is not scaled at all.
    is_dark = packing == "12 as 16" and entries != "65536" and kind != "modality"
    assert (difference > 100) if is_dark else (difference <= 1.01)


@pytest.mark.parametrize(
    ("largest", "declared", "bits"),
    [
        (65535, 16, 16),
        (16384, 16, 16),  # a quarter of the full scale
        (16383, 16, 14),
        (4095, 16, 12),
        (3000, 16, 12),
        (255, 16, 8),
        (3, 16, 8),
        (4095, 12, 12),
        (9, 8, 8),
        (4095, 8, 12),
        (4095, 0, 12),
        (4095, 99, 12),
        (0, 0, 1),
    ],
)
def test_the_full_scale_of_a_table(largest, declared, bits):
    assert full_scale_bits(np.array([0, largest]), declared) == bits


@pytest.mark.parametrize("sign", ["US", "SS"])
def test_a_first_value_beyond_32767_is_negative_only_if_the_input_can_be(sign):
    stored = np.array([[40_000, 40_001, 40_002]], np.uint16)
    item = pydicom.Dataset()
    first = 40_000 - (65536 if sign == "SS" else 0)
    item["LUTDescriptor"] = pydicom.DataElement("LUTDescriptor", sign, [3, first, 8])
    item["LUTData"] = pydicom.DataElement("LUTData", "US", [10, 20, 255])
    assert read(dicom_file(stored, VOILUTSequence=[item])).pixels.tolist() == [[10, 20, 255]]


def test_a_presentation_table_maps_the_output_of_the_step_before():
    item = pydicom.Dataset()
    item["LUTDescriptor"] = pydicom.DataElement("LUTDescriptor", "US", [256, 0, 8])
    inverse = list(range(255, -1, -1))
    item["LUTData"] = pydicom.DataElement("LUTData", "US", inverse)
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    found = read(dicom_file(stored, PresentationLUTSequence=[item], **window))
    assert np.array_equal(found.pixels, 255 - stored)


@pytest.mark.parametrize("lacking", ["LUTDescriptor", "LUTData"])
def test_a_table_that_is_unusable_is_named(lacking):
    item = pydicom.Dataset()
    item["LUTDescriptor"] = pydicom.DataElement("LUTDescriptor", "US", [3, 0, 8])
    item["LUTData"] = pydicom.DataElement("LUTData", "US", [10, 20, 255])
    del item[lacking]
    with pytest.raises(RadiographError, match="bad_dicom: the LUTDescriptor or LUTData of"):
        read(dicom_file(np.zeros((2, 2), np.uint16), VOILUTSequence=[item]))
