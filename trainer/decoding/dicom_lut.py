"""Look-up tables of DICOM: modality, VOI, presentation and palette tables (PS3.3 C.11, C.7.6.3.1).

Devices disagree with the standard on how entries are packed, on the byte order, on the sign of the
first mapped value, and on the number of bits that they use. Each table is read by what it holds.
"""

from typing import NamedTuple

import numpy as np
import pydicom

from trainer.decoding.refusal import refuse


class Lut(NamedTuple):
    """Holds one look-up table.

    Attributes:
      entries: float64 [n], not scaled.
      first: input value that the first entry stands for.
      bits: number of bits of the full scale of `entries`.
    """

    entries: np.ndarray
    first: int
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Map input values, float64 [n], to entries, float64 [n]; outer entries hold beyond."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Map input values, float64 [n], to entries as shares of the full scale, 0 to 1."""
        return np.clip(self.look_up(values) / ((1 << self.bits) - 1), 0, 1)


def read_lut(item: pydicom.Dataset, prefix: str, little: bool, signed: bool) -> Lut:
    """Read one table.

    Args:
      item: data set with the elements `<prefix>Descriptor` and `<prefix>Data`.
      prefix: `LUT`, or `RedPaletteColorLookupTable` and so on.
      little: whether the file is little-endian.
      signed: whether the input of the table can be negative (PS3.3 C.11.2.1.1).
    """
    try:
        length, first, declared = (int(number) for number in item[f"{prefix}Descriptor"].value)
        # The numbers are 16 bits wide. Which sign pydicom gives them depends on an ambiguous VR.
        length, first = (length & 0xFFFF) or 1 << 16, first & 0xFFFF
        entries = _entries(item[f"{prefix}Data"], length, little)
    except (KeyError, TypeError, ValueError):
        refuse("bad_dicom", f"the {prefix}Descriptor or {prefix}Data of the DICOM file is unusable")
    if not entries.size:
        refuse("bad_dicom", f"the {prefix}Data of the DICOM file holds no entries")
    if signed and first >= 1 << 15:
        first -= 1 << 16
    return Lut(entries.astype(np.float64), first, full_scale_bits(entries, declared))


def full_scale_bits(entries: np.ndarray, declared: int) -> int:
    """Return the number of bits of the full scale of a table's entries.

    It is the declared number, unless the entries contradict it: they exceed it, or they end below
    a quarter of the full scale, as those of devices that declare 16 bits and use 12. A table of
    8 bits or fewer may be as dark as it likes.
    """
    used = max(1, int(entries.max()).bit_length())
    if used <= declared <= min(max(used + 1, 8), 16):
        return declared
    return max(used, min(declared, 8))


def _entries(element: pydicom.DataElement, length: int, little: bool) -> np.ndarray:
    """Return the entries, unsigned [n], at most `length` of them.

    Entries of 8 bits stand in words of 16 bits, or two in each word, the first one in the lower
    byte (PS3.3 C.11.1.1.1). The number of bytes shows which.
    """
    value = element.value
    if not isinstance(value, bytes):
        words = np.atleast_1d(np.asarray(value, np.int64) & 0xFFFF).astype("<u2")
    elif element.VR == "OB" or len(value) % 2:
        return np.frombuffer(value, np.uint8)[:length]
    else:
        words = np.frombuffer(value, "<u2" if little else ">u2")
    packed = words.astype("<u2").view(np.uint8)
    is_packed = length > 1 and len(packed) in (length, length + 1)
    return (packed if is_packed else words)[:length]
