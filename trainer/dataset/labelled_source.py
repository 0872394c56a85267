"""Decode the radiographs of a labelled source as preparation does, without writing a data set."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

from trainer.dataset import prepared_split, sources, splits
from trainer.dataset.encode import Encoded, encode
from trainer.dataset.prepared_split import Split
from trainer.dataset.threads import map_in_threads
from trainer.errors import DataError


def load(
    source: str, layout: str, image_size: int, body_parts: Sequence[str], split: str | None = None
) -> tuple[Split, list[str]]:
    """Load the images that the source lists, letterboxed to squares.

    Args:
      source, layout, body_parts: as `sources.list_source` takes them.
      image_size: side of the square in pixels.
      split: `train`, `validation` or `test`, for the images that the source itself puts there; None
        for all images.

    Returns:
      The images, and sentences on files that were refused and on what may be wrong.

    Raises:
      ConfigError, DataError: the source is wrong, has no such split, or all its files were refused.
    """
    listing = sources.list_source(source, layout, body_parts)
    chosen = [example for example in listing.examples if split in (None, example.split)]
    if not chosen:
        raise DataError(
            f"{source} has no image in the split {split!r}; omit --split to take all its images"
        )
    # A patient may be in several splits here, since nothing is trained.
    splits.check_groups(dataclasses.replace(example, split=None) for example in chosen)
    images = prepared_split.allocate((len(chosen), image_size, image_size, 1), "auto")
    taken: list[Encoded] = []
    refused: list[Encoded] = []
    for outcome in map_in_threads(functools.partial(encode, image_size=image_size), chosen):
        if outcome.png is None:
            refused.append(outcome)
            continue
        png = np.frombuffer(outcome.png, np.uint8)
        images[len(taken), :, :, 0] = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
        taken.append(dataclasses.replace(outcome, png=None))
    refusals = _describe_refusals(source, refused)
    if not taken:
        raise DataError(f"no image of {source} can be evaluated: {refusals[0]}")
    examples = [outcome.example for outcome in taken]
    loaded = Split(
        split or "all",
        images[: len(taken)],
        labels=np.array([example.label for example in examples], np.int64),
        patient_id=np.array([example.patient_id for example in examples]),
        study_id=np.array([example.study_id for example in examples]),
        path=np.array([example.path for example in examples]),
        attributes=tuple(outcome.attributes for outcome in taken),
    )
    return loaded, [*refusals, *listing.warnings, *splits.list_patient_warnings(examples)]


def _describe_refusals(source: str, refused: Sequence[Encoded]) -> list[str]:
    """Return a sentence that counts the refused files by reason, or nothing."""
    if not refused:
        return []
    reasons = Counter(str(outcome.reason) for outcome in refused)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return [
        f"{len(refused)} files of {source} were refused ({counts}); first, "
        f"{refused[0].example.path}: {refused[0].detail}"
    ]
