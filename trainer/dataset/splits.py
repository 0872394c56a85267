"""Assign patients to splits that new data does not change, and check the splits."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

from trainer.dataset.example import LABELS, SPLITS, Example
from trainer.errors import ConfigError, DataError
from trainer.files import study_folders


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise `ConfigError` unless both are in [0, 1) and leave patients to train on."""
    for name, fraction in (
        ("validation_fraction", validation_fraction),
        ("test_fraction", test_fraction),
    ):
        if not 0 <= fraction < 1:
            raise ConfigError(f"{name} must be at least 0 and below 1, got {fraction}")
    if validation_fraction + test_fraction >= 1:
        raise ConfigError(
            f"validation_fraction {validation_fraction} and test_fraction {test_fraction} leave "
            "nothing to train on; their sum must be below 1"
        )


def compute_position(patient_id: str, seed: int) -> float:
    """Compute a number in [0, 1) from patient and seed: the first 53 bits of a SHA-256."""
    digest = hashlib.sha256(f"{seed}/{patient_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(
    examples: Sequence[Example], validation_fraction: float, test_fraction: float, seed: int
) -> list[Example]:
    """Assign each example to a split.

    Splits that the source names are kept. A split that it does not name is taken from the training
    patients: a `compute_position` below `test_fraction` belongs to the test split, the next
    `validation_fraction` to the validation split. So new patients never move others.

    Args:
      examples: listed files; `split` None counts as `train`.
      validation_fraction: share of all patients, in [0, 1), if the source has no validation split.
      test_fraction: share of all patients, in [0, 1), if the source has no test split.
      seed: changes which patients are selected.
    """
    check_fractions(validation_fraction, test_fraction)
    named = {example.split for example in examples}
    test_share = 0.0 if "test" in named else test_fraction
    validation_share = 0.0 if "validation" in named else validation_fraction

    def split(example: Example) -> str:
        if example.split and example.split != "train":
            return example.split
        place = compute_position(example.patient_id, seed)
        if place < test_share:
            return "test"
        return "validation" if place < test_share + validation_share else "train"

    return [dataclasses.replace(example, split=split(example)) for example in examples]


def check_groups(examples: Iterable[Example]) -> None:
    """Raise `DataError` if a patient is in two splits, or a study has two labels."""
    sides: dict[str, dict[str | None, str]] = collections.defaultdict(dict)
    labels: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for example in examples:
        sides[example.patient_id].setdefault(example.split, example.path)
        labels[example.study_id].setdefault(example.label, example.path)
    if torn := [patient for patient, paths in sides.items() if len(paths) > 1]:
        places = ", ".join(f"{path} in {split}" for split, path in sides[torn[0]].items())
        raise DataError(
            f"patient {torn[0]} is in more than one split ({places}); {len(torn)} in all: "
            "keep each patient in one"
        )
    if double := [study for study, paths in labels.items() if len(paths) > 1]:
        places = ", ".join(
            f"{path} is {LABELS[label]}" for label, path in sorted(labels[double[0]].items())
        )
        raise DataError(
            f"study {double[0]} has two labels ({places}); {len(double)} in all: "
            "all images of a study share a label; correct them, or name other studies in the "
            "column study of a manifest (one per image if the labels are of images)"
        )


def list_patient_warnings(examples: Sequence[Example]) -> list[str]:
    """Return a warning if the source names no patients, so that splits may share a person."""
    if any(example.patient_id != example.study_id for example in examples):
        return []
    counted = "study" if any(example.study_id != example.path for example in examples) else "image"
    return [
        f"the source names no patients, so each {counted} counts as one, and a person with several "
        "may be in two splits, which makes every metric too good; name the patients in the column "
        "patient of a manifest",
        *_list_folder_warnings(examples),
    ]


def _list_folder_warnings(examples: Iterable[Example]) -> list[str]:
    """Return a warning if folders hold too many images for a study, so that each is its own."""
    alone = (example.path for example in examples if example.study_id == example.path)
    oversized = {
        folder: number
        for folder, number in study_folders.find_oversized(alone).items()
        if study_folders.is_sorting(folder.split("/")[0])  # of the layout `folders`
    }
    if not oversized:
        return []
    return [
        f"{study_folders.describe_oversized(oversized)}: each image in it was treated as a study "
        "and a patient of its own; name patients and studies in the columns of a manifest"
    ]


def check_classes(examples: Iterable[Example]) -> list[str]:
    """Check that `train` has both labels; return a warning for each other split that lacks one.

    Raises:
      DataError: the training split lacks a label.
    """
    present: dict[str | None, collections.Counter] = {
        split: collections.Counter() for split in SPLITS
    }
    for example in examples:
        present[example.split][example.label] += 1
    warnings = []
    for split, counts in present.items():
        lacking = [name for label, name in enumerate(LABELS) if not counts[label]]
        if not lacking:
            continue
        what = (
            f"the {split} split has no {' and no '.join(lacking)} images ({counts.total()} in all)"
        )
        if split == "train":
            raise DataError(
                f"{what}: nothing can be learned from it; add some, or change the fractions or the "
                "seed of the splits"
            )
        fraction = f"{split}_fraction"
        warnings.append(
            f"{what}: some of its metrics will be undefined; raise --{fraction} or change --seed, "
            "or name the split in the source"
        )
    return warnings
