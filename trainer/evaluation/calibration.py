"""Temperature, threshold and abstain band, fitted on validation scores: what turns a logit into a call.

A threshold is fitted on a few hundred images, and there the cut with the most correct calls is mostly noise: in the simulation of
`benchmarks/threshold_rules.py` (AUROC 0.91 to 0.93, 200 images of 88 patients) it costs 0.6 to 0.9 points of accuracy against the
best cut there is. Plain 0.5 costs nothing on an unbiased model and 1 to 3 points on a biased one. `kappa`, `accuracy` and
`youden` therefore move from the cut that the calibrated probabilities imply only as far as the labels support it
(`_supported_cut`). `kappa`, the default, loses least: 0.2 points with classes of like size, and least kappa overall.
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
_SMALLEST = 1e-12  # probability; keeps logits finite


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """How a logit becomes a call.

    Attributes:
      temperature: divisor of the logit, in `TEMPERATURE_RANGE`.
      threshold: calibrated probability at and above which a case is positive, in (0, 1).
      rule: how the threshold was chosen.
      uncertain_band: calibrated probabilities [low, high) that are called uncertain; None when off.
      fitted: False where there was too little to fit anything on.
    """

    temperature: float
    threshold: float
    rule: str
    uncertain_band: tuple[float, float] | None = None
    fitted: bool = True


def check_rule(rule: str) -> str:
    """`rule`, if it is `youden`, `kappa`, `accuracy`, `sensitivity>=0.95`, `specificity>=0.9` or a fixed number as `0.5`.

    Raises:
      ConfigError: anything else, blanks included.
    """
    fixed = _FIXED.fullmatch(rule) and float(rule) > 0
    constraint = _CONSTRAINT.fullmatch(rule)
    if rule in _BALANCED_RULES or fixed or (constraint and float(constraint[2]) > 0):
        return rule
    raise ConfigError(
        f"threshold rule: expected one of {', '.join(_BALANCED_RULES)}, sensitivity>=0.95, specificity>=0.9 (any number in (0, 1]), "
        f"or a fixed threshold such as 0.5, got {rule!r}"
    )


def check_abstain(abstain: float) -> None:
    """Raises `ConfigError` unless it is a share in [0, 1)."""
    if not 0 <= abstain < 1:
        raise ConfigError(f"abstain: expected a share of images in [0, 1), got {abstain}")


def fit(
    cases: Cases, rule: str = DEFAULT_RULE, abstain: float = 0.0, seed: int = 0
) -> OperatingPoint:
    """The operating point of validation images; their `probability` is not read, only `logit`, `label` and `patient_id`.

    With one class missing or fewer than ten images nothing can be fitted: temperature 1, threshold 0.5 (or the fixed one), no
    band, and a warning.

    Args:
      rule: see `check_rule`. A constraint holds exactly on these images, with the other rate as high as it can be; the threshold
        lies in the middle of the gap between two scores.
      abstain: largest share of these images, those nearest the threshold in calibrated logit, to call uncertain; 0 is off.
      seed: of the patient bootstrap.

    Raises:
      ConfigError: an unknown rule, or `abstain` outside [0, 1).
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
    """The cases with `probability` = sigmoid(`logit` / temperature)."""
    return dataclasses.replace(cases, probability=expit(cases.logit / temperature))


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The divisor of the logits [N] that minimises the log loss of the labels [N] (Guo et al. 2017), in `TEMPERATURE_RANGE`.

    Platt's targets, (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), stand in for 1 and 0, so that separable scores keep a finite
    temperature. 1.0 where one class is missing or there are fewer than ten images.
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
    """Slope and intercept of P(positive) = sigmoid(slope * logit + intercept) (Platt 1999), for logits [N] and labels [N]."""
    target, scale = _smooth_targets(label), float(np.std(logits)) or 1.0
    fitted = minimize(
        lambda line: _compute_log_loss(line[0] * logits / scale + line[1], target),
        np.array([1.0, 0.0]),
    )
    return float(fitted.x[0] / scale), float(fitted.x[1])


def _can_be_fitted(logits: np.ndarray, label: np.ndarray) -> bool:
    positives = int(np.sum(label))
    if len(logits) >= MIN_IMAGES and 0 < positives < len(logits):
        return True
    logging.warning(
        "Nothing to calibrate on: %d validation images, %d positive (at least %d of both classes are needed); "
        "temperature 1 and threshold 0.5 stand.",
        len(logits),
        positives,
        MIN_IMAGES,
    )
    return False


def _smooth_targets(label: np.ndarray) -> np.ndarray:
    positives = np.sum(label)
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))


def _compute_log_loss(logits: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logits) - target * logits))


def _find_supported_cut(cases: Cases, kind: str, seed: int) -> float:
    """The calibrated logit to cut at, for `youden`, `kappa` or `accuracy`.

    Three estimates of the best cut: `implied`, by taking the calibrated probabilities at their word; `platt`, by letting them be
    biased; `bagged`, the mean over 200 patient-bootstrap resamples of the middle of the best plateau. The cut goes from `implied`
    towards the mean of the other two by the factor d^2 / (d^2 + s^2), d the distance and s the bootstrap's standard deviation:
    empirical Bayes, so that noise is ignored and a bias, or many images, is followed.
    """
    z = logit(np.clip(cases.probability, _SMALLEST, 1 - _SMALLEST))
    implied = float(logit(_compute_implied_probability(z, expit(z), kind)))
    slope, intercept = fit_platt(z, cases.label)
    if slope <= 0:
        logging.warning(
            "The scores do not rank positives above negatives on validation; the threshold is not fitted to them."
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
    """The best cut if `probability` [N] were true: pi + w (1 - 2 pi) / 2, pi the mean, w = 0 (youden), 1 (accuracy), kappa (kappa).

    Each objective is a ratio of sums over the images that are called positive, so that an image belongs to them when its
    probability exceeds one number (Koyejo et al. 2014); for kappa = 2 (TP - pi q) / (pi + q - 2 pi q) that is the above.
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
    """Middle of the best cuts of logits [N], and the objective there, for weights [R, N] of either class: float64 [R] each."""
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
    """The probability to cut at: `sensitivity` or `specificity` at least `least` on the cases, the other rate as high as can be.

    Of several such cuts, the one that gives the constrained rate the most as well.
    """
    score = np.clip(cases.probability, _SMALLEST, 1 - _SMALLEST)
    values = np.unique(score)
    # A cut at or below values[k], above values[k - 1]: k = 0 calls all positive, k = len(values) none.
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
    """[low, high), symmetric about the threshold in logit, that holds at most the share `abstain` of `probability` [N]."""
    centre = logit(threshold)
    distance = np.abs(logit(np.clip(probability, _SMALLEST, 1 - _SMALLEST)) - centre)
    # Rounded, so that two scores at one distance on either side are a tie.
    distances, counts = np.unique(np.round(distance, 12), return_counts=True)
    fitting = int(
        np.searchsorted(counts.cumsum(), np.floor(abstain * len(probability) + 1e-9), side="right")
    )
    if not fitting:
        return None
    half = (distances[fitting - 1] + distances[fitting]) / 2
    return float(expit(centre - half)), float(expit(centre + half))
