"""Fit the line from logits to calibrated probabilities, by the method that does best on new cases.

Class weights in the loss move every logit by the log of the ratio of the classes, which a
temperature alone can't undo: with 15 % positives the mean probability stays near one half. Platt
scaling can, but with few cases its second parameter is noise. So each method is fitted on some
patients and measured on the others (cross-fitting). A method must lower the log loss by more than
its standard error to be taken before a simpler one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from trainer.evaluation import bootstrap
from trainer.evaluation.cases import Cases
from trainer.model_json.scaling import Scaling

TEMPERATURE_RANGE = (0.2, 10.0)
MIN_CASES = 10
FOLDS = 5
UNCHANGED = "unchanged"
"""Method that keeps the scaling that there is: none for images, that of the images for studies."""

Fit = Callable[[np.ndarray, np.ndarray], Scaling | None]
"""Function from logits [N] and labels [N] to a scaling; None where the method doesn't apply."""


def choose(cases: Cases, unchanged: Scaling) -> tuple[Scaling, dict[str, Any]]:
    """Choose the method by cross-fitting, and fit it on all cases.

    Args:
      cases: scored images or studies that the network was not trained on. Their `logit`, `label`
        and `patient_id` are read. Patients are divided into `FOLDS` parts of similar share of
        positive patients.
      unchanged: the scaling of the method `UNCHANGED`.

    Returns:
      The scaling, and a record: `method`, `temperature`, `intercept`, the number of `cases`, and
      `methods`, which holds for each method the cross-fitted `log_loss`, `brier` and `ece`. Where
      there are fewer than `MIN_CASES` cases, or a part holds all patients of one class,
      `unchanged` and an empty record.
    """
    if not can_be_fitted(cases.label):
        return unchanged, {}
    fits: dict[str, Fit] = {
        UNCHANGED: lambda logit, label: unchanged,
        "temperature": lambda logit, label: Scaling(fit_temperature(logit, label)),
        "platt": _fit_platt_scaling,
    }
    fold = assign_folds(cases)
    measured: dict[str, dict[str, float]] = {}
    losses: dict[str, np.ndarray] = {}
    for name, fit in fits.items():
        probability = _cross_fit(cases, fold, fit)
        if fit(cases.logit, cases.label) and probability is not None:
            losses[name] = compute_losses(cases.label, probability)
            measured[name] = _measure(cases, probability, losses[name])
    if not measured:
        return unchanged, {}
    method = choose_method(losses, cases.patient_id)
    chosen = fits[method](cases.logit, cases.label) or unchanged
    return chosen, {
        "method": method,
        **dataclasses.asdict(chosen),
        "cases": len(cases),
        "methods": measured,
    }


def describe(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what was chosen and how each method did, for each record of `choose`.

    Args:
      records: by level, `image` and `study`.
    """
    return [_describe_choice(level, record) for level, record in records.items() if record]


def _describe_choice(level: str, record: Mapping[str, Any]) -> str:
    """Return two sentences: the choice, and the cross-fitted figures of each method."""
    kept = {"image": "no calibration", "study": "the images' calibration"}[level]
    words = {UNCHANGED: kept, "temperature": "temperature scaling", "platt": "Platt scaling"}
    figures = "; ".join(
        ", ".join(f"{values[key]:.3f}" for key in ("log_loss", "brier", "ece"))
        + f" with {words[name]}"
        for name, values in record["methods"].items()
    )
    return (
        f"Calibration per {level}: {words[record['method']]}, chosen by cross-fitting on "
        f"{record['cases']} cases. Log loss, Brier score and calibration error were {figures}."
    )


def can_be_fitted(label: np.ndarray) -> bool:
    """Return whether labels [N] are of both classes and at least `MIN_CASES`."""
    return len(label) >= MIN_CASES and 0 < int(np.sum(label)) < len(label)


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """Fit the temperature (Guo et al. 2017, arXiv:1706.04599) for logits [N] and labels [N].

    It is the divisor of the logits, in `TEMPERATURE_RANGE`, that minimises the log loss. The
    targets are Platt's (`smooth_targets`), so that separable scores keep a finite temperature. The
    temperature is 1 where `can_be_fitted` doesn't hold.
    """
    if not can_be_fitted(label):
        return 1.0
    target = smooth_targets(label)
    low, high = np.log(TEMPERATURE_RANGE)
    fitted = minimize_scalar(
        lambda log_t: compute_log_loss(logits * np.exp(-log_t), target),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(fitted.x))


def fit_platt(logits: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Fit P(positive) = sigmoid(slope * logit + intercept) (Platt 1999) for logits [N], labels [N].

    Returns:
      Slope and intercept.
    """
    target, scale = smooth_targets(label), float(np.std(logits)) or 1.0
    fitted = minimize(
        lambda line: compute_log_loss(line[0] * logits / scale + line[1], target),
        np.array([1.0, 0.0]),
    )
    return float(fitted.x[0] / scale), float(fitted.x[1])


def _fit_platt_scaling(logits: np.ndarray, label: np.ndarray) -> Scaling | None:
    """Fit Platt's line; None where its temperature is outside `TEMPERATURE_RANGE`."""
    slope, intercept = fit_platt(logits, label)
    low, high = TEMPERATURE_RANGE
    return Scaling(1 / slope, intercept) if 1 / high <= slope <= 1 / low else None


def assign_folds(cases: Cases) -> np.ndarray:
    """Return the fold of each case, int [N]: positive patients, then the others, dealt in turn."""
    patients, patient = np.unique(cases.patient_id, return_inverse=True)
    positive = np.bincount(patient, cases.label) > 0
    fold = np.empty(len(patients), np.int64)
    fold[np.argsort(~positive, kind="stable")] = np.arange(len(patients)) % FOLDS
    return fold[patient]


def _cross_fit(cases: Cases, fold: np.ndarray, fit: Fit) -> np.ndarray | None:
    """Return the probability of each case by a fit on the other folds; None where one can't be."""
    probability = np.empty(len(cases))
    for k in np.unique(fold):
        seen, held_out = fold != k, fold == k
        if not 0 < cases.label[seen].sum() < seen.sum():
            return None
        scaling = fit(cases.logit[seen], cases.label[seen])
        if scaling is None:
            return None
        probability[held_out] = scaling.compute_probability(cases.logit[held_out])
    return probability


def choose_method(losses: Mapping[str, np.ndarray], patient_id: np.ndarray) -> str:
    """Return the last method that gains more than a standard error over the one chosen before it.

    The images of a patient are alike, so that the standard error is that of a mean over patients
    as clusters (Cameron & Miller 2015, Journal of Human Resources 50:317).

    Args:
      losses: the log loss of each case, float [N], by method, the simplest first.
      patient_id: of each case, str [N].
    """
    chosen, *further = losses
    patients, patient = np.unique(patient_id, return_inverse=True)
    for name in further:
        gain = losses[chosen] - losses[name]
        of_patient = np.bincount(patient, gain - gain.mean())
        correction = len(patients) / max(1, len(patients) - 1)
        if gain.mean() > np.sqrt(correction * np.sum(of_patient**2)) / len(gain):
            chosen = name
    return chosen


def compute_losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the log loss of each case, float [N]."""
    return -np.log(np.maximum(np.where(label == 1, probability, 1 - probability), 1e-12))


def _measure(cases: Cases, probability: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    scored = dataclasses.replace(cases, probability=probability)
    found = bootstrap.compute_weighted_metrics(scored, bootstrap.count_each_once(scored), 0.5)
    return {
        "log_loss": float(losses.mean()),
        "brier": float(found["brier"][0]),
        "ece": float(found["ece"][0]),
    }


def smooth_targets(label: np.ndarray) -> np.ndarray:
    """Return Platt's targets (1999): (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0."""
    positives = np.sum(label)
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))


def compute_log_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Return the mean cross-entropy of logits [N] with targets [N] in [0, 1]."""
    return float(np.mean(np.logaddexp(0, logits) - target * logits))
