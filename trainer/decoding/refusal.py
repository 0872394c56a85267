"""Codes of rejection reasons and warnings, and the error of a rejected file.

The codes are stable. Files without a picture have one of `REASONS`, pictures to look at twice have
some of `WARNINGS`.
"""

from typing import NoReturn

REASONS: dict[str, str] = {
    "empty": "the file has no bytes",
    "not_an_image": "the content is that of no image format",
    "truncated": "the content starts as an image but is cut short or damaged",
    "unsupported": "the content is an image of a kind that is not read: another format, "
    "several frames, an unknown transfer syntax",
    "too_large": "the header announces more pixels than are decoded, "
    "or decoding takes more memory than a file may take",
    "bad_dicom": "the content is DICOM without a usable picture: no pixel data, "
    "missing or contradictory attributes",
}

WARNINGS: dict[str, str] = {
    "blank": "the picture shows nothing: it has one grey level, or nearly",
    "ignored_element": "an element of the DICOM file that the picture does not need is malformed "
    "and was ignored",
    "no_end_marker": "the JPEG data have all their rows but no end marker",
    "other_modality": "the DICOM file names a modality that is not radiography, such as CT or MR",
}


class RadiographError(ValueError):
    """A file that cannot become pixels.

    Attributes:
      reason: a key of `REASONS`; stable, made for counting and filtering.
      detail: what was expected and what was found, for a person. It never quotes a value of a
        DICOM patient attribute.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def refuse(reason: str, detail: str) -> NoReturn:
    """Raise `RadiographError` with a key of `REASONS` and a sentence."""
    raise RadiographError(reason, detail)
