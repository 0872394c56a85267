"""Read numbers of a DICOM data set leniently: a malformed element gives None, not an error."""

import math

import pydicom
from pydicom.dataelem import RawDataElement

_BINARY = frozenset(("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"))


def has_value(dataset: pydicom.Dataset, keyword: str) -> bool:
    """Return whether an element is there and not empty."""
    return bool(_texts(dataset, keyword))


def read_numbers(dataset: pydicom.Dataset, keyword: str) -> list[float | None]:
    """Return the values of an element, with None for what is not a finite number.

    Text of any type serves, with a point or a comma before the decimals. An element that is
    missing or empty has no values.
    """
    return [_parse(text) for text in _texts(dataset, keyword)]


def read_integer(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """Return the first value of an element if it is a whole number."""
    number = next(iter(read_numbers(dataset, keyword)), None)
    return int(number) if number is not None and number == int(number) else None


def _texts(dataset: pydicom.Dataset, keyword: str) -> list[str]:
    """Return the values of an element as text; an empty list if it is missing or empty."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return []
    element = dataset.get_item(tag)
    value = element.value
    binary = pydicom.datadict.dictionary_VR(tag) if element.VR is None else element.VR
    if isinstance(element, RawDataElement):
        if isinstance(value, bytes) and not _BINARY & set(str(binary).split(" or ")):
            text = value.decode("ascii", "replace").strip(" \0")
            return [part.strip() for part in text.split("\\")] if text else []
        try:
            value = dataset[tag].value
        except Exception:  # pydicom raises many types for malformed elements
            return ["malformed"]
    if value is None or value == "":
        return []
    if isinstance(value, list | tuple | pydicom.multival.MultiValue):
        return [str(part) for part in value]
    return [part.strip() for part in str(value).split("\\")]


def _parse(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
