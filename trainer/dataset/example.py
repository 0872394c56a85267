"""Define an example: one image of a source, on its way from the listing to a record."""

import dataclasses
from collections.abc import Mapping

LABELS = ("negative", "positive")
SPLITS = ("train", "validation", "test")

# Preparation adds these attributes to each image, as text. Sizes are in pixels, before the
# letterbox.
DERIVED_ATTRIBUTES = ("source_format", "source_mode", "source_width", "source_height")


@dataclasses.dataclass(frozen=True)
class Example:
    """Describes a listed file that has not been opened.

    Attributes:
      path: path relative to the source, with `/`, which names the image in the data set. Outside
        the source it is the URI itself.
      uri: local path or `gs://` URI to open.
      label: 0 negative, 1 positive.
      patient_id: images with the same patient stay in one split.
      study_id: unique in the source; all images of a study share a label.
      split: `train`, `validation` or `test`; None if the source does not name one.
      attributes: what else the source says about the image; an evaluation can be sliced by it.
    """

    path: str
    uri: str
    label: int
    patient_id: str
    study_id: str
    split: str | None = None
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
