"""Metrics per image and per study, each with a 95 % patient-bootstrap interval; slices; paired comparison of two models.

Images of one patient are not independent, so patients are what is resampled (with replacement, 2,000 times; percentile
interval, Efron & Tibshirani 1993, ch. 13). Resampling is arithmetic: a resample is a row of patient multiplicities, and every
metric is a function of weighted counts, so that 2,000 resamples are a few matrix products and one sort.

A metric that the cases don't define (AUROC with one class missing, PPV with nothing called positive) is None, never NaN.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.errors import DataError

CONFIDENCE = 0.95
RESAMPLES = 2000
METRICS = (
    "accuracy", "balanced_accuracy", "auroc", "auprc", "sensitivity", "specificity",
    "ppv", "npv", "f1", "kappa", "brier", "ece",
)  # fmt: skip
ECE_BINS = 10
_CHUNK_ELEMENTS = 2_000_000  # of float64: bounds what a bootstrap holds at once to about 100 MB
OTHERS = "(others)"
_MAX_GROUPS = 8
_SMALLEST = 1e-12


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
        for name, dtype in (("probability", np.float64), ("logit", np.float64), ("label", np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("study_id", "patient_id", "path"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.str_))
        shapes = {field.name: getattr(self, field.name).shape for field in dataclasses.fields(self)}
        if len(set(shapes.values())) > 1 or self.label.ndim != 1:
            raise DataError(f"the columns of scored cases must be of one length, got {shapes}")
        if not (np.isfinite(self.logit).all() and ((self.probability >= 0) & (self.probability <= 1)).all()):
            bad = self.path[~np.isfinite(self.logit) | ~((self.probability >= 0) & (self.probability <= 1))][0]
            raise DataError(
                f"expected finite logits and probabilities in [0, 1], got others, first for {bad}; retrain the model"
            )
        if not np.isin(self.label, (0, 1)).all():
            raise DataError(f"labels must be 0 or 1, got {sorted(set(self.label.tolist()))[:5]}")
        if len(np.unique(self.path)) < len(self.path):
            raise DataError("a path stands twice among the scored cases; each must name one case")

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> "Cases":
        """The cases at `index` (int or bool [N]), in that order."""
        return Cases(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def studies(cases: Cases) -> Cases:
    """One case per study: the mean of its images' probabilities, its label, its patient; `path` is `patient/study`.

    Raises:
      DataError: a study whose images have two labels.
    """
    names = np.char.add(np.char.add(cases.patient_id, "/"), cases.study_id)
    unique, first, study = np.unique(names, return_index=True, return_inverse=True)
    images = np.bincount(study)
    label = np.bincount(study, cases.label) / images
    if not np.isin(label, (0, 1)).all():
        raise DataError(f"study {unique[(label > 0) & (label < 1)][0]} has images of both labels; a label belongs to a study")
    # A mean of values in [0, 1] can round to just above 1.
    probability = np.clip(np.bincount(study, cases.probability) / images, 0, 1)
    odds = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    return Cases(probability, np.log(odds / (1 - odds)), label, cases.study_id[first], cases.patient_id[first], unique)


def evaluate(
    cases: Cases,
    threshold: float,
    band: tuple[float, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """All of `METRICS` per image and per study.

    Args:
      cases: scored images.
      threshold: calibrated probability at and above which a case is called positive.
      band: probabilities [low, high) that are called uncertain. Adds `coverage`, the share of cases that are called, and
        `called_accuracy` among them; the other metrics stay over all cases.
      resamples: bootstrap resamples of patients.
      seed: of the resampling.

    Returns:
      `{"image": {metric: {"value", "low", "high"}}, "study": {...}, "counts", "confusion": {"image": {"tp", ...}, ...},
      "threshold", "uncertain_band"}`, ready for JSON. An interval is over the resamples that define the metric, and None for
      fewer than two patients. That of `ece` lies high: resampling adds noise, and noise adds to an absolute error.

    Raises:
      DataError: no case at all, or a study of two labels.
    """
    if not len(cases):
        raise DataError("there is no case to evaluate; name a split that holds images")
    levels = {"image": cases, "study": studies(cases)}
    return {
        **{name: _with_intervals(level, threshold, band, resamples, seed) for name, level in levels.items()},
        "counts": {
            "images": len(cases),
            "studies": len(levels["study"]),
            "patients": len(np.unique(cases.patient_id)),
            "positive_images": int(cases.label.sum()),
            "positive_studies": int(levels["study"].label.sum()),
        },
        "confusion": {name: confusion(level, threshold) for name, level in levels.items()},
        "threshold": float(threshold),
        "uncertain_band": list(band) if band else None,
    }


def slices(
    cases: Cases,
    columns: Mapping[str, Sequence[Any]],
    threshold: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracy, AUROC and kappa of the images in each group of each column.

    Args:
      columns: by name, one value per case, in the order of `cases`. Of a column with more than eight values, numbers (as text
        too) are cut at their quartiles, and of other text the eight most frequent stand for themselves, the rest as `OTHERS`.

    Returns:
      `{column: {group: {"images", "patients", "positives", "accuracy": {"value", "low", "high"}, "auroc", "kappa"}}}`.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for column, values in columns.items():
        if len(values) != len(cases):
            raise DataError(f"column {column} has {len(values)} values for {len(cases)} cases")
        table[column] = {}
        for name, members in _groups(values):
            group = cases.take(members)
            measured = _with_intervals(group, threshold, None, resamples, seed)
            table[column][name] = {
                "images": len(group),
                "patients": len(np.unique(group.patient_id)),
                "positives": int(group.label.sum()),
                **{metric: measured[metric] for metric in ("accuracy", "auroc", "kappa")},
            }
    return table


def compare(
    a: Cases,
    b: Cases,
    threshold_a: float = 0.5,
    threshold_b: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Is `b` better than `a`? The paired patient bootstrap of the difference `b - a` of each metric.

    Both models are measured on the same resampled patients, so what makes a patient easy or hard for both cancels. `p_value` is
    two-sided: twice the share of resampled differences on the far side of zero (each count plus one, so that it is never 0).

    Returns:
      `{"image": {metric: {"a", "b", "difference", "low", "high", "p_value"}}, "study": {...}}`.

    Raises:
      DataError: other images, labels, studies or patients in the one than in the other.
    """
    a, b = a.take(np.argsort(a.path)), b.take(np.argsort(b.path))
    if not np.array_equal(a.path, b.path):
        differing = sorted(set(a.path.tolist()) ^ set(b.path.tolist()))
        raise DataError(
            f"two models are compared on the same images, but {len(differing)} are scored by one only: {differing[0]}"
        )
    for name in ("label", "study_id", "patient_id"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise DataError(f"the two sets of scores disagree on the {name} of an image; score the same data set with both")
    pairs = {"image": (a, b), "study": (studies(a), studies(b))}
    return {name: _differences(*pair, threshold_a, threshold_b, resamples, seed) for name, pair in pairs.items()}


def confusion(cases: Cases, threshold: float) -> dict[str, int]:
    """Counts `tp`, `fp`, `fn`, `tn` of the cases called positive at and above `threshold`."""
    called, label = cases.probability >= threshold, cases.label == 1
    cells = {"tp": called & label, "fp": called & ~label, "fn": ~called & label, "tn": ~called & ~label}
    return {name: int(cell.sum()) for name, cell in cells.items()}


def table(result: Mapping[str, Any]) -> str:
    """What `evaluate` returned as lines for a terminal: `accuracy  0.884 (0.846-0.921)  0.893 (0.841-0.940)`."""
    counts = result["counts"]
    rows = [f"{'':18}{'image':>22}{'study':>22}"]
    for name in result["image"]:
        rows.append(f"{name:18}{format_interval(result['image'][name]):>22}{format_interval(result['study'][name]):>22}")
    rows.append(
        f"{counts['images']} images ({counts['positive_images']} positive), {counts['studies']} studies, "
        f"{counts['patients']} patients; threshold {result['threshold']:.3f}; 95 % patient-bootstrap intervals"
    )
    return "\n".join(rows)


def format_interval(measured: Mapping[str, float | None]) -> str:
    """`0.884 (0.846-0.921)`; `0.884` without an interval; `undefined`."""
    if measured["value"] is None:
        return "undefined"
    if measured["low"] is None:
        return f"{measured['value']:.3f}"
    return f"{measured['value']:.3f} ({measured['low']:.3f}-{measured['high']:.3f})"


def multiplicities(patients: int, resamples: int, seed: int, rows: int | None = None) -> Iterator[np.ndarray]:
    """How often each patient is drawn: float64 [at most `rows`, patients] blocks of `resamples` rows in all, each of sum `patients`."""
    generator = np.random.default_rng(seed)
    rows = rows or resamples
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = generator.integers(patients, size=(block, patients)) + patients * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * patients).reshape(block, patients).astype(np.float64)


def weighted_metrics(
    cases: Cases,
    multiplicity: np.ndarray,
    threshold: float,
    band: tuple[float, float] | None = None,
) -> dict[str, np.ndarray]:
    """Each metric over R weighted copies of the cases: float64 [R], NaN where undefined.

    Args:
      multiplicity: float64 [R, P], whole numbers: how often each patient, in sorted order, stands in a copy. Ones give the
        plain metric.
    """
    patient = np.unique(cases.patient_id, return_inverse=True)[1]
    called, label = cases.probability >= threshold, cases.label == 1
    error = cases.probability - cases.label
    ece_bin = np.minimum((cases.probability * ECE_BINS).astype(int), ECE_BINS - 1)
    sure = np.ones_like(label) if band is None else (cases.probability < band[0]) | (cases.probability >= band[1])
    # Everything but the two rankings is a sum over cases, hence over patients.
    columns = [called & label, called & ~label, ~called & label, ~called & ~label, error**2, sure, sure & (called == label)]
    columns += [error * (ece_bin == k) for k in range(ECE_BINS)]
    per_patient = np.stack([np.bincount(patient, column, multiplicity.shape[1]) for column in columns], axis=1)
    tp, fp, fn, tn, squared, sured, sure_right, *bins = (multiplicity @ per_patient).T
    total, positives, negatives = tp + fp + fn + tn, tp + fn, fp + tn
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / positives, tn / negatives
        agreement = (tp + tn) / total
        chance = ((tp + fp) * positives + (fn + tn) * negatives) / total**2
        auroc, auprc = _ranking(cases, multiplicity[:, patient])
        values = {
            "accuracy": agreement,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "auroc": auroc,
            "auprc": auprc,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "kappa": np.where((positives > 0) & (negatives > 0), (agreement - chance) / (1 - chance), np.nan),
            "brier": squared / total,
            "ece": np.abs(bins).sum(axis=0) / total,
        }
        return values if band is None else {**values, "coverage": sured / total, "called_accuracy": sure_right / sured}


def _ranking(cases: Cases, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (Mann-Whitney, ties half) and average precision (ties as one threshold) for weights [R, N]; float64 [R] each."""
    order = np.argsort(-cases.probability, kind="stable")
    starts = np.flatnonzero(np.diff(cases.probability[order], prepend=np.inf))
    weight, label = weight[:, order], cases.label[order]
    positive = np.add.reduceat(weight * label, starts, axis=1)
    negative = np.add.reduceat(weight * (1 - label), starts, axis=1)
    tp, fp = positive.cumsum(axis=1), negative.cumsum(axis=1)
    auroc = (negative * (tp - positive / 2)).sum(axis=1) / (tp[:, -1] * fp[:, -1])
    precision = tp / np.maximum(tp + fp, 1)
    auprc = np.where(fp[:, -1] > 0, (positive * precision).sum(axis=1) / tp[:, -1], np.nan)
    return auroc, auprc


def _blocks(cases: Cases, resamples: int, seed: int) -> Iterator[np.ndarray]:
    patients = len(np.unique(cases.patient_id))
    return multiplicities(patients, resamples, seed, max(1, _CHUNK_ELEMENTS // len(cases)))


def _whole(cases: Cases) -> np.ndarray:
    return np.ones((1, len(np.unique(cases.patient_id))))


def _with_intervals(
    cases: Cases, threshold: float, band: tuple[float, float] | None, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    whole = weighted_metrics(cases, _whole(cases), threshold, band)
    blocks = [weighted_metrics(cases, block, threshold, band) for block in _blocks(cases, resamples, seed)]
    measured = {}
    for name, (value,) in whole.items():
        low, high = _interval(np.concatenate([block[name] for block in blocks]), whole=value, patients=_whole(cases).size)
        measured[name] = {"value": _number(value), "low": low, "high": high}
    return measured


def _differences(
    a: Cases, b: Cases, threshold_a: float, threshold_b: float, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    def both(multiplicity: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return weighted_metrics(a, multiplicity, threshold_a), weighted_metrics(b, multiplicity, threshold_b)

    whole_a, whole_b = both(_whole(a))
    blocks = [both(block) for block in _blocks(a, resamples, seed)]
    rows = {}
    for name in METRICS:
        value = (whole_b[name] - whole_a[name])[0]
        drawn = np.concatenate([block_b[name] - block_a[name] for block_a, block_b in blocks])
        low, high = _interval(drawn, whole=value, patients=_whole(a).size)
        rows[name] = {
            "a": _number(whole_a[name][0]),
            "b": _number(whole_b[name][0]),
            "difference": _number(value),
            "low": low,
            "high": high,
            "p_value": None if low is None else _p_value(drawn),
        }
    return rows


def _interval(drawn: np.ndarray, whole: float, patients: int) -> tuple[float | None, float | None]:
    if np.isnan(whole) or np.isnan(drawn).all() or patients < 2:
        return None, None
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _p_value(drawn: np.ndarray) -> float:
    drawn = drawn[~np.isnan(drawn)]
    # Rounding leaves differences of 1e-17 where there is none.
    far = min((drawn <= 1e-12).sum(), (drawn >= -1e-12).sum())
    return float(min(1.0, 2 * (far + 1) / (len(drawn) + 1)))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _groups(column: Sequence[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The name and bool [N] members of each group of a column, in order."""
    names, counts = np.unique(np.asarray(column, np.str_), return_counts=True)
    if len(names) > _MAX_GROUPS:
        try:
            yield from _quartiles(np.asarray(column, np.float64))
            return
        except ValueError:  # not a column of numbers
            names = np.sort(names[np.argsort(-counts, kind="stable")[:_MAX_GROUPS]])
    values = np.asarray(column, np.str_)
    for name in names:
        yield str(name), values == name
    if not np.isin(values, names).all():
        yield OTHERS, ~np.isin(values, names)


def _quartiles(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    for k in range(len(edges) - 1):
        if (part == k).any():
            yield f"{edges[k]:g} to {edges[k + 1]:g}", part == k
