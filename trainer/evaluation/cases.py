"""Scored cases: what metrics, calibration and the report are computed from."""

import dataclasses

import numpy as np

from trainer.errors import DataError

_SMALLEST = 1e-12  # probability; keeps the logit of a study finite


@dataclasses.dataclass(frozen=True)
class Cases:
    """Scored cases (images, or studies) in any order. Plain sequences are converted.

    Attributes:
      probability: float64 [N] in [0, 1], calibrated.
      logit: float64 [N], as the model gave it, before calibration.
      label: int64 [N], 1 positive, 0 negative.
      study_id: str [N], unique within a patient.
      patient_id: str [N].
      path: str [N], unique; names the case.

    Raises:
      DataError: lengths that differ, a score that is not a number, a label other than 0 and 1, a path twice.
    """

    probability: np.ndarray
    logit: np.ndarray
    label: np.ndarray
    study_id: np.ndarray
    patient_id: np.ndarray
    path: np.ndarray

    def __post_init__(self) -> None:
        if not np.isin(self.label, (0, 1)).all():  # before 0.4 is cast to 0
            raise DataError(
                f"labels must be 0 or 1, got {sorted(set(np.unique(self.label).tolist()) - {0, 1})[:5]}"
            )
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
                f"expected finite logits and probabilities in [0, 1], got others, first for {bad}; retrain the model"
            )
        if len(np.unique(self.path)) < len(self.path):
            raise DataError("a path stands twice among the scored cases; each must name one case")

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> "Cases":
        """The cases at `index` (int or bool [N]), in that order."""
        return Cases(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def aggregate_by_study(cases: Cases) -> Cases:
    """One case per study: the mean of its images' probabilities, its label, its patient; `path` is `patient/study`.

    Raises:
      DataError: a study whose images have two labels.
    """
    names = np.char.add(np.char.add(cases.patient_id, "/"), cases.study_id)
    unique, first, study = np.unique(names, return_index=True, return_inverse=True)
    images = np.bincount(study)
    label = np.bincount(study, cases.label) / images
    if not np.isin(label, (0, 1)).all():
        raise DataError(
            f"study {unique[(label > 0) & (label < 1)][0]} has images of both labels; a label belongs to a study"
        )
    # A mean of values in [0, 1] can round to just above 1.
    probability = np.clip(np.bincount(study, cases.probability) / images, 0, 1)
    odds = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    return Cases(
        probability,
        np.log(odds / (1 - odds)),
        label,
        cases.study_id[first],
        cases.patient_id[first],
        unique,
    )


def count_confusion(cases: Cases, threshold: float) -> dict[str, int]:
    """Counts `tp`, `fp`, `fn`, `tn` of the cases called positive at and above `threshold`."""
    called, label = cases.probability >= threshold, cases.label == 1
    cells = {
        "tp": called & label,
        "fp": called & ~label,
        "fn": ~called & label,
        "tn": ~called & ~label,
    }
    return {name: int(cell.sum()) for name, cell in cells.items()}
