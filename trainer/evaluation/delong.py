"""Compare the AUROC of two models by DeLong's test, with patients as clusters.

DeLong, DeLong & Clarke-Pearson (Biometrics 1988) take all cases for independent. Obuchowski
(Biometrics 1997) extends the variance to clusters, which the images of one patient are. With one
case per patient both are the same.
"""

import numpy as np
import scipy.special
import scipy.stats

from trainer.evaluation import bootstrap
from trainer.evaluation.cases import Cases


def compare_auroc(a: Cases, b: Cases) -> dict[str, float | None]:
    """Test whether the AUROC of `b` differs from that of `a`.

    Args:
      a, b: the same cases in the same order, scored by each of two models.

    Returns:
      `low` and `high` of the 95 % interval of the difference `b - a`, and the two-sided `p_value`.
      All are None with fewer than `bootstrap.MIN_PATIENTS` patients, with fewer than two patients
      of either class, or where the models rank all cases alike.
    """
    none: dict[str, float | None] = {"low": None, "high": None, "p_value": None}
    positive = a.label == 1
    patients, patient = np.unique(a.patient_id, return_inverse=True)
    of_class = [len(np.unique(patient[members])) for members in (positive, ~positive)]
    if len(patients) < bootstrap.MIN_PATIENTS or min(of_class) < 2:
        return none
    components = _compute_components(b) - _compute_components(a)
    difference = components[positive].mean()
    variance = _compute_variance(components, difference, positive, patient, of_class)
    if variance <= np.finfo(float).eps:
        return none
    error = np.sqrt(variance)
    half = scipy.special.ndtri((1 + bootstrap.CONFIDENCE) / 2) * error
    return {
        "low": float(difference - half),
        "high": float(difference + half),
        "p_value": float(2 * scipy.special.ndtr(-abs(difference) / error)),
    }


def _compute_components(cases: Cases) -> np.ndarray:
    """Compute the share of cases of the other class that each case is ranked correctly against.

    Ties count one half. The mean over either class is the AUROC. Ranks give the shares without
    comparing each pair (Sun & Xu, IEEE Signal Processing Letters 2014).

    Returns:
      float64 [N] in [0, 1].
    """
    positive = cases.label == 1
    rank = scipy.stats.rankdata(cases.probability)
    components = np.empty(len(cases))
    for members in (positive, ~positive):
        within = scipy.stats.rankdata(cases.probability[members])
        lower = (rank[members] - within) / (~members).sum()
        components[members] = lower if members is positive else 1 - lower
    return components


def _compute_variance(
    components: np.ndarray,
    mean: float,
    positive: np.ndarray,
    patient: np.ndarray,
    of_class: list[int],
) -> float:
    """Compute the variance of a mean of components, equation 6 of Obuchowski (1997).

    Args:
      components: float64 [N].
      mean: the mean of the components, equal over either class.
      positive: bool [N].
      patient: int [N], the patient of each case, from 0.
      of_class: number of patients with a positive case, and with a negative case.
    """
    deviation = components - mean
    # By patient, the sum over its positive cases and that over its negative cases.
    sums = [np.bincount(patient, deviation * members) for members in (positive, ~positive)]
    counts = [positive.sum(), (~positive).sum()]
    variance = sum(
        patients / (patients - 1) * (summed**2).sum() / count**2
        for patients, summed, count in zip(of_class, sums, counts, strict=True)
    )
    patients = len(sums[0])
    covariance = patients / (patients - 1) * (sums[0] * sums[1]).sum() / (counts[0] * counts[1])
    return float(variance + 2 * covariance)
