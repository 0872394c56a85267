"""Compute metrics and confidence intervals by the patient bootstrap.

A resample of patients is a row of multiplicities: how often each patient is drawn. Every metric is
a function of weighted counts, so 2,000 resamples cost a few matrix products and one sort.
"""

from collections.abc import Iterator

import numpy as np
import scipy.special

from trainer.evaluation.cases import Cases

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""Shares of the resamples below the limits of a percentile interval."""
ECE_BINS = 10
MIN_PATIENTS = 5
"""Smallest number of patients for which an interval is computed.

n patients have C(2n - 1, n) different resamples: four have 35, too few for tails of 2.5 %; five
have 126.
"""
# Rounding removes differences of about 1e-17 that floating-point arithmetic leaves between equals.
_DECIMALS = 12
_BLOCK_ELEMENTS = 2_000_000  # float64 elements; limits the bootstrap's memory to about 100 MB


def draw_multiplicities(
    patients: int, resamples: int, seed: int, rows: int | None = None
) -> Iterator[np.ndarray]:
    """Draw bootstrap resamples of patients, as the number of times each patient is drawn.

    Args:
      patients: number of patients.
      resamples: number of resamples in all blocks together.
      seed: seed of the random generator.
      rows: largest number of resamples in a block; by default all are in one block.

    Yields:
      float64 [at most `rows`, patients]; each row sums to `patients`.
    """
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
    """Compute each metric on R bootstrap resamples of the cases.

    Args:
      cases: scored cases of P patients.
      multiplicity: float64 [R, P], whole numbers: how often a resample contains each patient, in
        sorted order. A row of ones gives the metric of the cases themselves.
      threshold: probability at and above which a case is called positive.
      band: probabilities [low, high) that are called uncertain; adds `coverage` and
        `called_accuracy`.

    Returns:
      By name of the metric, float64 [R]; NaN where the metric is undefined.
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
    # Every metric except AUROC and AUPRC is a function of sums over cases, hence over patients.
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
    """Compute AUROC and average precision for case weights [R, N]; both are float64 [R].

    AUROC is the Mann-Whitney statistic, in which a tie counts one half. For the average precision,
    tied scores are one threshold.
    """
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
    """Draw patient multiplicities in blocks whose memory does not depend on the number of cases."""
    patients = len(np.unique(cases.patient_id))
    return draw_multiplicities(patients, resamples, seed, max(1, _BLOCK_ELEMENTS // len(cases)))


def count_each_once(cases: Cases) -> np.ndarray:
    """Return the multiplicities of the cases themselves, each patient once: float64 [1, P]."""
    return np.ones((1, len(np.unique(cases.patient_id))))


def compute_interval(
    drawn: np.ndarray, value: float, patients: int, lowest: float = 0.0
) -> tuple[float | None, float | None]:
    """Compute the confidence interval of a metric on the logit scale, from its resamples [R].

    The metric is mapped to a share in (0, 1). On the logit of that share, the interval is the
    value plus and minus Student's t times the standard error, which the delta method takes from
    the standard deviation of the resamples. Percentile intervals cover too seldom with few
    patients, since a metric near 1 has its long tail on the other side
    (`benchmarks/coverage.py`).

    Args:
      drawn: the metric of each resample; NaN where it is undefined.
      value: the metric of the cases themselves.
      patients: number of patients that the metric rests on.
      lowest: smallest value that the metric can take; the largest is 1.

    Returns:
      Lower and upper limit, or (None, None) where `_is_uninformative` holds or the value is at
      the end of its range.
    """
    drawn = drawn[~np.isnan(drawn)]
    share = (value - lowest) / (1 - lowest)
    if _is_uninformative(drawn, value, patients) or not 0 < share < 1:
        return None, None
    error = drawn.std() * np.sqrt(patients / (patients - 1)) / (1 - lowest)
    quantile = scipy.special.stdtrit(patients - 1, (1 + CONFIDENCE) / 2)
    half = quantile * error / (share * (1 - share))
    centre = scipy.special.logit(share)
    low, high = lowest + (1 - lowest) * scipy.special.expit(centre + half * np.array([-1, 1]))
    return float(low), float(high)


def compute_error_interval(
    drawn: np.ndarray, value: float, patients: int
) -> tuple[float | None, float | None]:
    """Compute the confidence interval of a calibration error from its resamples [R].

    A calibration error is a sum of absolute values, to which noise only adds: the value lies above
    the truth as the resamples lie above the value. The basic interval, in which the distances of
    the resamples are reflected at the value, corrects for that (Davison & Hinkley 1997, section
    5.2). The value exceeds the truth by more than the resamples exceed the value, so the lower
    limit goes down by twice that mean excess more, which is what simulated intervals need
    (`benchmarks/coverage.py`). The interval contains the value.

    Returns:
      Lower and upper limit, or (None, None) where `_is_uninformative` holds.
    """
    drawn = drawn[~np.isnan(drawn)]
    low, high = compute_difference_interval(drawn, value, patients)
    if low is None or high is None:
        return None, None
    excess = max(0.0, drawn.mean() - value)
    upper = min(1.0, max(value, 2 * value - low))
    return float(max(0, 2 * value - high - 2 * excess)), float(upper)


def compute_difference_interval(
    drawn: np.ndarray, value: float, patients: int
) -> tuple[float | None, float | None]:
    """Compute the percentile interval (Efron & Tibshirani 1993) of resampled differences [R].

    Returns:
      Lower and upper limit, or (None, None) where `_is_uninformative` holds.
    """
    drawn = drawn[~np.isnan(drawn)]
    if _is_uninformative(drawn, value, patients):
        return None, None
    low, high = np.quantile(drawn, TAILS)
    return float(low), float(high)


def _is_uninformative(drawn: np.ndarray, value: float, patients: int) -> bool:
    """Return whether resamples [R] give no interval.

    That is where `value`, of the cases themselves, is NaN, where there are fewer than
    `MIN_PATIENTS`, or where all resamples agree. If every case is called correctly, so is every
    resample, which says nothing about the next case.
    """
    agree = len(np.unique(drawn.round(_DECIMALS))) < 2
    return bool(np.isnan(value)) or patients < MIN_PATIENTS or agree


def compute_p_value(drawn: np.ndarray) -> float:
    """Compute the two-sided p-value of resampled differences [R].

    It is twice the share of differences on the far side of zero. Each count is increased by one, so
    that the p-value is never 0 (Davison & Hinkley 1997, section 4.2).
    """
    drawn = drawn[~np.isnan(drawn)].round(_DECIMALS)
    far = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (far + 1) / (len(drawn) + 1)))


def compute_wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the score interval (Wilson 1927) of each share [N] of `count` [N] independent cases.

    Unlike a bootstrap interval, it has a width at shares of 0 and 1.
    """
    z = scipy.special.ndtri((1 + CONFIDENCE) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half
