"""Read and write the metadata that preparation records beside the images."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pydantic

from trainer.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Holds the metadata of one prepared data set.

    Attributes:
      image_size: side of the square images, in pixels.
      layout: how the source was laid out, one of `options.LAYOUTS`.
      body_parts: body parts that were taken from a source in MURA's layout; empty for others.
      validation_fraction, test_fraction: share of the patients, in [0, 1], where the source names
        no such split.
      seed: seed by which patients were assigned to splits.
      simulated: whether the radiographs were rendered by a program.
      preprocessing: the contract of `radiograph.PREPROCESSING` that made the pixels.
      fingerprint: SHA-256 over content, labels, splits and preprocessing; empty after a dry run.
      splits: by split, the counts `images`, `studies`, `patients`, `positives` and `rejected`.
      rejections: number of files that could not become images, by reason.
      omissions: number of files of the source that were not opened, by reason.
      slices: names of the columns that the source carried beside the label.
      warnings: sentences about the data that a reader of any figure should know.
    """

    image_size: int
    layout: str = ""
    body_parts: tuple[str, ...] = ()
    validation_fraction: float = 0.0
    test_fraction: float = 0.0
    seed: int = 0
    simulated: bool = False
    preprocessing: Mapping[str, Any]
    fingerprint: str
    splits: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    rejections: Mapping[str, int] = dataclasses.field(default_factory=dict)
    omissions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    slices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, metadata: Mapping[str, Any], source: str) -> "DatasetInfo":
        """Read the metadata of a data set; `source` is its folder, for messages.

        Raises:
          DataError: a field is missing or of another type.
        """
        try:
            return _INFO.validate_python(metadata)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(
                f"the metadata of {source} are damaged (`{field}`: {first['msg'].lower()}); prepare"
                " it again with humerus-prepare --overwrite"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the fields but `omissions` as JSON-able values, as `model.json` records them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name != "omissions"
        }


def is_same_preprocessing(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions of the preprocessing agree once they are written as JSON."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


_INFO = pydantic.TypeAdapter(DatasetInfo)
