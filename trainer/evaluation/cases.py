"""Define scored cases, from which metrics, calibration and the report are computed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trainer.errors import DataError
from trainer.model_json.scaling import Scaling


@dataclasses.dataclass(frozen=True)
class Cases:
    """Scored cases (images or studies) in any order; plain sequences are converted to arrays.

    Attributes:
      probability: float64 [N] in [0, 1], calibrated.
      logit: float64 [N], the model's output before calibration.
      label: int64 [N], 1 positive, 0 negative.
      study_id: str [N], unique within a patient.
      patient_id: str [N].
      path: str [N], unique; names the case.

    Raises:
      DataError: the lengths differ, a score is not a number, a label is neither 0 nor 1, or a path
        occurs twice.
    """

    probability: np.ndarray
    logit: np.ndarray
    label: np.ndarray
    study_id: np.ndarray
    patient_id: np.ndarray
    path: np.ndarray

    def __post_init__(self) -> None:
        if not np.isin(self.label, (0, 1)).all():  # checked before a cast turns 0.4 into 0
            unknown = sorted(set(np.unique(self.label).tolist()) - {0, 1})[:5]
            raise DataError(f"labels must be 0 or 1, got {unknown}")
        for name, dtype in (
            ("probability", np.float64),
            ("logit", np.float64),
            ("label", np.int64),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("study_id", "patient_id", "path"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.str_))
        shapes = {field.name: getattr(self, field.name).shape for field in dataclasses.fields(self)}
        if len(set(shapes.values())) > 1 or self.label.ndim != 1:
            raise DataError(f"the columns of scored cases must be of one length, got {shapes}")
        if not (
            np.isfinite(self.logit).all()
            and ((self.probability >= 0) & (self.probability <= 1)).all()
        ):
            bad = self.path[
                ~np.isfinite(self.logit) | ~((self.probability >= 0) & (self.probability <= 1))
            ][0]
            raise DataError(
                "expected finite logits and probabilities in [0, 1], got other values, first for "
                f"{bad}; retrain the model"
            )
        if len(np.unique(self.path)) < len(self.path):
            values, counts = np.unique(self.path, return_counts=True)
            raise DataError(
                f"path {str(values[counts > 1][0])!r} occurs twice among the scored cases; list"
                " each image once"
            )

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> "Cases":
        """Return the cases at `index` (int [M] or bool [N]), in that order."""
        return Cases(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def concatenate(parts: Sequence[Cases]) -> Cases:
    """Return the cases of all parts, in order."""
    return Cases(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Cases)
        )
    )


def sample_rows(count: int, most: int) -> np.ndarray:
    """Return at most `most` of the indices from 0 to `count` - 1, evenly spread and ascending."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def spread_over_labels(labels: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced rows, the same number of each label if possible.

    Args:
      labels: int [N].

    Returns:
      Ascending indices, int [M].
    """
    kinds = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    share = most // max(1, len(kinds))
    taken = [kind[sample_rows(len(kind), share)] for kind in kinds]
    return np.sort(np.concatenate(taken)) if taken else np.array([], int)


def aggregate_by_study(cases: Cases, scaling: Scaling) -> Cases:
    """Return one case per study, with the mean logit of its images.

    The `path` of such a case is `patient/study`.

    Args:
      cases: scored images.
      scaling: turns the mean logit of a study into its probability.

    Raises:
      DataError: a study has images with different labels.
    """
    names = np.char.add(np.char.add(cases.patient_id, "/"), cases.study_id)
    unique, first, study = np.unique(names, return_index=True, return_inverse=True)
    images = np.bincount(study)
    label = np.bincount(study, cases.label) / images
    if not np.isin(label, (0, 1)).all():
        raise DataError(
            f"study {unique[(label > 0) & (label < 1)][0]} has images of both labels; "
            "all images of a study share one label"
        )
    logit = np.bincount(study, cases.logit) / images
    return Cases(
        scaling.compute_probability(logit),
        logit,
        label,
        cases.study_id[first],
        cases.patient_id[first],
        unique,
    )


def count_confusion(cases: Cases, threshold: float) -> dict[str, int]:
    """Count `tp`, `fp`, `fn`, `tn`; a case is called positive at and above `threshold`."""
    called, label = cases.probability >= threshold, cases.label == 1
    cells = {
        "tp": called & label,
        "fp": called & ~label,
        "fn": ~called & label,
        "tn": ~called & ~label,
    }
    return {name: int(cell.sum()) for name, cell in cells.items()}
