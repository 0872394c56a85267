"""Metrics over weighted copies of scored cases: the arithmetic of the patient bootstrap.

A resample of patients is a row of multiplicities, and every metric is a function of weighted counts, so that 2,000 resamples
are a few matrix products and one sort.
"""

from collections.abc import Iterator

import numpy as np
import scipy.special

from trainer.evaluation.cases import Cases

CONFIDENCE = 0.95
ECE_BINS = 10
MIN_PATIENTS = 5
"""For an interval: n patients have C(2n - 1, n) different resamples, four 35, which is too few for tails of 2.5 %; five have 126."""
_DECIMALS = 12  # arithmetic leaves differences of 1e-17 where there is none
_BLOCK_ELEMENTS = 2_000_000  # of float64: bounds what a bootstrap holds at once to about 100 MB


def draw_multiplicities(
    patients: int, resamples: int, seed: int, rows: int | None = None
) -> Iterator[np.ndarray]:
    """How often each patient is drawn: float64 [at most `rows`, patients] blocks of `resamples` rows in all, each of sum `patients`."""
    generator = np.random.default_rng(seed)
    rows = rows or resamples
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = (
            generator.integers(patients, size=(block, patients))
            + patients * np.arange(block)[:, None]
        )
        yield (
            np.bincount(drawn.ravel(), minlength=block * patients)
            .reshape(block, patients)
            .astype(np.float64)
        )


def compute_weighted_metrics(
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
    sure = (
        np.ones_like(label)
        if band is None
        else (cases.probability < band[0]) | (cases.probability >= band[1])
    )
    # Everything but the two rankings is a sum over cases, hence over patients.
    columns = [
        called & label,
        called & ~label,
        ~called & label,
        ~called & ~label,
        error**2,
        sure,
        sure & (called == label),
    ]
    columns += [error * (ece_bin == k) for k in range(ECE_BINS)]
    per_patient = np.stack(
        [np.bincount(patient, column, multiplicity.shape[1]) for column in columns], axis=1
    )
    tp, fp, fn, tn, squared, sured, sure_right, *bins = (multiplicity @ per_patient).T
    total, positives, negatives = tp + fp + fn + tn, tp + fn, fp + tn
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / positives, tn / negatives
        agreement = (tp + tn) / total
        chance = ((tp + fp) * positives + (fn + tn) * negatives) / total**2
        auroc, auprc = _compute_ranking_metrics(cases, multiplicity[:, patient])
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
            "kappa": np.where(
                (positives > 0) & (negatives > 0), (agreement - chance) / (1 - chance), np.nan
            ),
            "brier": squared / total,
            "ece": np.abs(bins).sum(axis=0) / total,
        }
        return (
            values
            if band is None
            else {**values, "coverage": sured / total, "called_accuracy": sure_right / sured}
        )


def _compute_ranking_metrics(cases: Cases, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def draw_blocks(cases: Cases, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Patient multiplicities in blocks that fit the memory, whatever the number of cases."""
    patients = len(np.unique(cases.patient_id))
    return draw_multiplicities(patients, resamples, seed, max(1, _BLOCK_ELEMENTS // len(cases)))


def count_each_once(cases: Cases) -> np.ndarray:
    """Every patient once: float64 [1, P]."""
    return np.ones((1, len(np.unique(cases.patient_id))))


def compute_interval(
    drawn: np.ndarray, value: float, patients: int
) -> tuple[float | None, float | None]:
    """Percentile interval of the resampled values [R].

    None where the metric's own `value` is NaN, with fewer than `MIN_PATIENTS`, and where all resamples agree: of cases that are all
    called rightly every resample is, which says nothing of how often the next one will be.
    """
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or patients < MIN_PATIENTS or len(np.unique(drawn.round(_DECIMALS))) < 2:
        return None, None
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def compute_p_value(drawn: np.ndarray) -> float:
    """Two-sided, of resampled differences [R]: twice the share beyond zero, each count plus one so that it is never 0."""
    drawn = drawn[~np.isnan(drawn)].round(_DECIMALS)
    far = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (far + 1) / (len(drawn) + 1)))


def compute_wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each share [N] of `count` [N] independent cases (Wilson 1927); unlike a resampled one, not a point at 0 and 1."""
    z = scipy.special.ndtri((1 + CONFIDENCE) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half
