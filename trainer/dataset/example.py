"""One image of a source, as it flows from the listing through the splits into a record."""

import dataclasses
from collections.abc import Mapping

LABELS = ("negative", "positive")
LABEL_WORDS = {"0": 0, "negative": 0, "normal": 0, "1": 1, "positive": 1, "abnormal": 1}
SPLITS = ("train", "validation", "test")
SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}

# What preparation adds to the attributes of each image, all as text; sizes in pixels, before the letterbox.
DERIVED_ATTRIBUTES = ("source_format", "source_mode", "source_width", "source_height")


@dataclasses.dataclass(frozen=True)
class Example:
    """One listed image file, not yet opened.

    Attributes:
      path: relative to the source, with `/`; names the image in the data set. Outside the source: the URI itself.
      uri: what to open, a local path or `gs://`.
      label: 0 negative, 1 positive.
      patient_id: whoever shares it stays in one split.
      study_id: unique in the source; the label belongs to it.
      split: `train`, `validation` or `test`; None where the source leaves it open.
      attributes: what else the source says of the image, to slice an evaluation by.
    """

    path: str
    uri: str
    label: int
    patient_id: str
    study_id: str
    split: str | None = None
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
