"""Fit the operating point on validation scores: scalings, threshold and uncertain band.

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
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from scipy.special import expit, logit

from trainer.errors import ConfigError
from trainer.evaluation import fit_scaling
from trainer.evaluation.bootstrap import draw_multiplicities
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.model_json.scaling import Scaling

DEFAULT_RULE = "kappa"
_BALANCED_RULES = ("youden", "kappa", "accuracy")
_CONSTRAINT = re.compile(r"(sensitivity|specificity)>=(0\.\d+|1(?:\.0+)?)")
_FIXED = re.compile(r"0\.\d+")
_RESAMPLES = 200
_BLOCK_ELEMENTS = 2_000_000
_SMALLEST = 1e-12  # smallest probability; keeps logits finite


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """The numbers that turn a logit into a calibrated probability and a label.

    Attributes:
      scaling: turns the logit of an image into its calibrated probability.
      threshold: calibrated probability at and above which a case is positive, in (0, 1).
      rule: the rule by which the threshold was chosen.
      uncertain_band: calibrated probabilities [low, high) that are called uncertain; None when off.
      fitted: False if there were too few images to fit anything.
      study_scaling: turns the mean logit of a study's images into its calibrated probability; None
        where it is that of the images.
      records: what `fit_scaling.choose` says of the scalings, by level: `image` and `study`.
    """

    scaling: Scaling
    threshold: float
    rule: str
    uncertain_band: tuple[float, float] | None = None
    fitted: bool = True
    study_scaling: Scaling | None = None
    records: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def effective_study_scaling(self) -> Scaling:
        """Return the scaling of studies, which is that of the images by default."""
        return self.study_scaling or self.scaling


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


def fit(
    cases: Cases, rule: str = DEFAULT_RULE, abstain: float = 0.0, seed: int = 0
) -> OperatingPoint:
    """Fit the operating point on validation images.

    If a class is missing or there are fewer than `fit_scaling.MIN_CASES` images, nothing is fitted:
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
    if not 0 <= abstain < 1:
        raise ConfigError(f"abstain: expected a share of images in [0, 1), got {abstain}")
    fixed = float(rule) if _FIXED.fullmatch(rule) else None
    if not fit_scaling.can_be_fitted(cases.label):
        logging.warning(
            "Nothing to calibrate on: %d validation images, %d positive (at least %d of both"
            " classes are needed); temperature 1 and threshold 0.5 are used.",
            len(cases),
            int(cases.label.sum()),
            fit_scaling.MIN_CASES,
        )
        return OperatingPoint(Scaling(), fixed or 0.5, rule, fitted=False)
    scaling, of_images = fit_scaling.choose(cases, Scaling())
    calibrated = apply(scaling, cases)
    study_scaling, of_studies = fit_scaling.choose(aggregate_by_study(cases, scaling), scaling)
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
        scaling,
        threshold,
        rule,
        _fit_uncertain_band(calibrated.probability, threshold, abstain),
        study_scaling=study_scaling,
        records={"image": of_images, "study": of_studies},
    )


def apply(scaling: Scaling, cases: Cases) -> Cases:
    """Return the cases with the probability that the scaling gives for their logit."""
    return dataclasses.replace(cases, probability=scaling.compute_probability(cases.logit))


def _find_supported_cut(cases: Cases, kind: str, seed: int) -> float:
    """Find the calibrated logit to cut at, for the rules `youden`, `kappa` and `accuracy`.

    There are three estimates of the best cut. `implied` assumes that the calibrated probabilities
    are true. `platt` corrects them for bias. `bagged` is the mean, over 200 resamples of the
    patient bootstrap, of the middle of the best plateau.

    The cut is shrunk (empirical Bayes): it moves from `implied` towards the mean of the other two
    by the factor d^2 / (d^2 + s^2). Here d is the distance and s the standard deviation of the
    bootstrap. So noise is ignored, while a bias, or many images, moves the cut.
    """
    z = logit(np.clip(cases.probability, _SMALLEST, 1 - _SMALLEST))
    implied = float(logit(compute_implied_probability(z, expit(z), kind)))
    slope, intercept = fit_scaling.fit_platt(z, cases.label)
    if slope <= 0:
        logging.warning(
            "The scores do not rank positives above negatives on the validation split; the "
            "threshold is not fitted to its labels."
        )
        return implied
    platt = (
        float(logit(compute_implied_probability(z, expit(slope * z + intercept), kind))) - intercept
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


def compute_implied_probability(z: np.ndarray, probability: np.ndarray, kind: str) -> float:
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
