"""Fit the operating point on validation scores: temperature, threshold and uncertain band.

A threshold is fitted on a few hundred images. With so few, the position of the cut with the most
correct calls is mostly noise. `benchmarks/threshold_rules.py` simulates it (AUROC 0.91 to 0.93, 200
images of 88 patients):

- That cut loses 0.6 to 0.9 points of accuracy against the best possible cut.
- A fixed 0.5 loses nothing if the model is unbiased, and 1 to 3 points if it is biased.

The rules `kappa`, `accuracy` and `youden` therefore start at the cut that the calibrated
probabilities imply, and move from it only as far as the labels support (`_find_supported_cut`).
`kappa`, the default, loses least: 0.2 points of accuracy with classes of similar size, and the
least kappa overall.
"""

import dataclasses
import re

import numpy as np
from absl import logging
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit

from trainer.errors import ConfigError
from trainer.evaluation.bootstrap import draw_multiplicities
from trainer.evaluation.cases import Cases

DEFAULT_RULE = "kappa"
TEMPERATURE_RANGE = (0.2, 10.0)
MIN_IMAGES = 10
_BALANCED_RULES = ("youden", "kappa", "accuracy")
_CONSTRAINT = re.compile(r"(sensitivity|specificity)>=(0\.\d+|1(?:\.0+)?)")
_FIXED = re.compile(r"0\.\d+")
_RESAMPLES = 200
_BLOCK_ELEMENTS = 2_000_000
_SMALLEST = 1e-12  # smallest probability; keeps logits finite


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """Holds what turns a logit into a calibrated probability and a label.

    Attributes:
      temperature: divisor of the logit, in `TEMPERATURE_RANGE`.
      threshold: calibrated probability at and above which a case is positive, in (0, 1).
      rule: the rule by which the threshold was chosen.
      uncertain_band: calibrated probabilities [low, high) that are called uncertain; None when off.
      fitted: False if there were too few images to fit anything.
    """

    temperature: float
    threshold: float
    rule: str
    uncertain_band: tuple[float, float] | None = None
    fitted: bool = True


def check_rule(rule: str) -> str:
    """Return a valid threshold rule unchanged.

    Valid are `youden`, `kappa`, `accuracy`, a constraint such as `sensitivity>=0.95` or
    `specificity>=0.9`, and a fixed threshold such as `0.5`.

    Raises:
      ConfigError: the rule is anything else, or contains a space.
    """
    fixed = _FIXED.fullmatch(rule) and float(rule) > 0
    constraint = _CONSTRAINT.fullmatch(rule)
    if rule in _BALANCED_RULES or fixed or (constraint and float(constraint[2]) > 0):
        return rule
    raise ConfigError(
        f"threshold rule: expected one of {', '.join(_BALANCED_RULES)}, sensitivity>=0.95, "
        "specificity>=0.9 (any number in (0, 1]), "
        f"or a fixed threshold such as 0.5, got {rule!r}"
    )


def check_abstain(abstain: float) -> None:
    """Raise `ConfigError` unless `abstain` is a share in [0, 1)."""
    if not 0 <= abstain < 1:
        raise ConfigError(f"abstain: expected a share of images in [0, 1), got {abstain}")


def fit(
    cases: Cases, rule: str = DEFAULT_RULE, abstain: float = 0.0, seed: int = 0
) -> OperatingPoint:
    """Fit the operating point on validation images.

    If a class is missing or there are fewer than `MIN_IMAGES` images, nothing is fitted:
    temperature 1, threshold 0.5 (or the fixed one), no uncertain band, and a logged warning.

    Args:
      cases: validation images. Their `logit`, `label` and `patient_id` are read, `probability` is
        not.
      rule: see `check_rule`. A constraint holds exactly on these images, with the other rate as
        high as possible; the threshold lies in the middle of the gap between two scores.
      abstain: largest share of these images to call uncertain, those whose calibrated logit is
        nearest to the threshold; 0 switches the band off.
      seed: seed of the patient bootstrap.

    Raises:
      ConfigError: the rule is unknown, or `abstain` is outside [0, 1).
    """
    check_rule(rule)
    check_abstain(abstain)
    fixed = float(rule) if _FIXED.fullmatch(rule) else None
    if not _can_be_fitted(cases.logit, cases.label):
        return OperatingPoint(1.0, fixed or 0.5, rule, fitted=False)
    temperature = fit_temperature(cases.logit, cases.label)
    calibrated = apply_temperature(cases, temperature)
    constraint = _CONSTRAINT.fullmatch(rule)
    if fixed:
        threshold = fixed
    elif constraint:
        threshold = _find_constrained_cut(calibrated, constraint[1], float(constraint[2]))
    else:
        threshold = float(
            np.clip(expit(_find_supported_cut(calibrated, rule, seed)), _SMALLEST, 1 - _SMALLEST)
        )
    return OperatingPoint(
        temperature,
        threshold,
        rule,
        _fit_uncertain_band(calibrated.probability, threshold, abstain),
    )


def apply_temperature(cases: Cases, temperature: float) -> Cases:
    """Return the cases with `probability` = sigmoid(`logit` / temperature)."""
    return dataclasses.replace(cases, probability=expit(cases.logit / temperature))


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """Fit the temperature (Guo et al. 2017, arXiv:1706.04599) for logits [N] and labels [N].

    It is the divisor of the logits, in `TEMPERATURE_RANGE`, that minimises the log loss. The
    targets are Platt's (`_smooth_targets`), so that separable scores keep a finite temperature. The
    temperature is 1 if a class is missing or there are fewer than `MIN_IMAGES` images.
    """
    if not _can_be_fitted(logits, label):
        return 1.0
    target = _smooth_targets(label)
    low, high = np.log(TEMPERATURE_RANGE)
    fitted = minimize_scalar(
        lambda log_t: _compute_log_loss(logits * np.exp(-log_t), target),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(fitted.x))


def fit_platt(logits: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Fit P(positive) = sigmoid(slope * logit + intercept) (Platt 1999) for logits [N], labels [N].

    Returns:
      Slope and intercept.
    """
    target, scale = _smooth_targets(label), float(np.std(logits)) or 1.0
    fitted = minimize(
        lambda line: _compute_log_loss(line[0] * logits / scale + line[1], target),
        np.array([1.0, 0.0]),
    )
    return float(fitted.x[0] / scale), float(fitted.x[1])


def _can_be_fitted(logits: np.ndarray, label: np.ndarray) -> bool:
    """Return whether there are both classes and enough images; log a warning if not."""
    positives = int(np.sum(label))
    if len(logits) >= MIN_IMAGES and 0 < positives < len(logits):
        return True
    logging.warning(
        "Nothing to calibrate on: %d validation images, %d positive (at least %d of both classes "
        "are needed); temperature 1 and threshold 0.5 are used.",
        len(logits),
        positives,
        MIN_IMAGES,
    )
    return False


def _smooth_targets(label: np.ndarray) -> np.ndarray:
    """Return Platt's targets (1999): (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0."""
    positives = np.sum(label)
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))


def _compute_log_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the mean cross-entropy of logits [N] with targets [N] in [0, 1]."""
    return float(np.mean(np.logaddexp(0, logits) - target * logits))


def _find_supported_cut(cases: Cases, kind: str, seed: int) -> float:
    """Find the calibrated logit to cut at, for the rules `youden`, `kappa` and `accuracy`.

    There are three estimates of the best cut. `implied` assumes that the calibrated probabilities
    are true. `platt` corrects them for bias. `bagged` is the mean, over 200 resamples of the
    patient bootstrap, of the middle of the best plateau.

    The cut is shrunk (empirical Bayes): it moves from `implied` towards the mean of the other two
    by the factor d^2 / (d^2 + s^2), where d is the distance and s the bootstrap's standard
    deviation. So noise is ignored, while a bias, or many images, moves the cut.
    """
    z = logit(np.clip(cases.probability, _SMALLEST, 1 - _SMALLEST))
    implied = float(logit(_compute_implied_probability(z, expit(z), kind)))
    slope, intercept = fit_platt(z, cases.label)
    if slope <= 0:
        logging.warning(
            "The scores do not rank positives above negatives on the validation split; the "
            "threshold is not fitted to its labels."
        )
        return implied
    platt = (
        float(logit(_compute_implied_probability(z, expit(slope * z + intercept), kind)))
        - intercept
    ) / slope
    patient = np.unique(cases.patient_id, return_inverse=True)[1]
    rows = max(1, _BLOCK_ELEMENTS // len(z))
    drawn = (
        block[:, patient]
        for block in draw_multiplicities(patient.max() + 1, _RESAMPLES, seed, rows)
    )
    optima = np.concatenate(
        [
            _find_best_cut(z, weight * cases.label, weight * (1 - cases.label), kind)[0]
            for weight in drawn
        ]
    )
    distance = (platt + optima.mean()) / 2 - implied
    if distance == 0:
        return implied
    return float(implied + distance**3 / (distance**2 + optima.var()))


def _compute_implied_probability(z: np.ndarray, probability: np.ndarray, kind: str) -> float:
    """Compute the best cut under the assumption that `probability` [N] is true.

    It is pi + w (1 - 2 pi) / 2, where pi is the mean probability, and w is 0 for youden, 1 for
    accuracy and the attainable kappa for kappa.

    Each objective is a ratio of sums over the images that are called positive. So the best rule
    calls an image positive if its probability exceeds one number (Koyejo et al. 2014, "Consistent
    binary classification with generalized performance metrics"). The formula follows with
    kappa = 2 (TP - pi q) / (pi + q - 2 pi q), where q is the share that is called positive.
    """
    prevalence = float(np.mean(probability))
    if kind == "kappa":
        weight = float(_find_best_cut(z, probability[None], 1 - probability[None], kind)[1][0])
    else:
        weight = {"youden": 0.0, "accuracy": 1.0}[kind]
    return prevalence + weight * (1 - 2 * prevalence) / 2


def _find_best_cut(
    z: np.ndarray, positive: np.ndarray, negative: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Find the best cut of logits [N] for R weightings of the cases.

    Args:
      z: logits, float64 [N].
      positive, negative: weight of each case as a positive and as a negative, float64 [R, N].
      kind: the objective: `youden`, `kappa` or `accuracy`.

    Returns:
      The mean of all best cuts, and the objective there; float64 [R] each.
    """
    order = np.argsort(z, kind="stable")
    values, starts = np.unique(z[order], return_index=True)
    zero = np.zeros((len(positive), 1))
    fn = np.hstack([zero, np.add.reduceat(positive[:, order], starts, axis=1).cumsum(axis=1)])
    tn = np.hstack([zero, np.add.reduceat(negative[:, order], starts, axis=1).cumsum(axis=1)])
    positives, negatives = fn[:, -1:], tn[:, -1:]
    tp, fp = positives - fn, negatives - tn
    total = positives + negatives
    if kind == "youden":
        objective = (
            tp / np.maximum(positives, _SMALLEST) + tn / np.maximum(negatives, _SMALLEST) - 1
        )
    else:
        objective = (tp + tn) / total
    if kind == "kappa":
        chance = ((tp + fp) * positives + (fn + tn) * negatives) / total**2
        objective = (objective - chance) / np.maximum(1 - chance, _SMALLEST)
    cuts = np.concatenate([[values[0] - 0.5], (values[1:] + values[:-1]) / 2, [values[-1] + 0.5]])
    highest = objective.max(axis=1)
    best = objective >= highest[:, None] - 1e-9
    return (best * cuts).sum(axis=1) / best.sum(axis=1), highest


def _find_constrained_cut(cases: Cases, rate: str, least: float) -> float:
    """Find the probability to cut at, with `rate` (sensitivity or specificity) at least `least`.

    Of the cuts that satisfy the constraint, take the one with the highest other rate; of several
    such cuts, the one with the highest constrained rate.
    """
    score = np.clip(cases.probability, _SMALLEST, 1 - _SMALLEST)
    values = np.unique(score)
    # Cut k lies at or below values[k] and above values[k - 1]. Cut 0 calls every case positive, cut
    # len(values) none.
    cleared, missed = (
        np.searchsorted(np.sort(score[cases.label == label]), [*values, np.inf]) for label in (0, 1)
    )
    sensitivity, specificity = 1 - missed / missed[-1], cleared / cleared[-1]
    own, other = (sensitivity, specificity) if rate == "sensitivity" else (specificity, sensitivity)
    k = np.lexsort((own, np.where(own >= least - 1e-9, other, -1)))[-1]
    low = values[k - 1] if k else values[0] / 2
    high = values[k] if k < len(values) else (1 + values[-1]) / 2
    middle = expit((logit(low) + logit(high)) / 2)
    return float(np.clip(middle, np.nextafter(low, 1), high))


def _fit_uncertain_band(
    probability: np.ndarray, threshold: float, abstain: float
) -> tuple[float, float] | None:
    """Fit [low, high) that contains at most the share `abstain` of `probability` [N].

    The band is symmetric about the threshold in logit. It is None if it would contain no image.
    """
    centre = logit(threshold)
    distance = np.abs(logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST)) - centre)
    # Distances are rounded so that two scores at the same distance on either side tie.
    distances, counts = np.unique(np.round(distance, 12), return_counts=True)
    fitting = int(
        np.searchsorted(counts.cumsum(), np.floor(abstain * len(probability) + 1e-9), side="right")
    )
    if not fitting:
        return None
    half = (distances[fitting - 1] + distances[fitting]) / 2
    return float(expit(centre - half)), float(expit(centre + half))
