"""Fit the weights with which the logits of several models are averaged."""

from collections.abc import Sequence

import numpy as np
from absl import logging
from scipy.optimize import minimize

from trainer.evaluation import fit_scaling
from trainer.evaluation.cases import Cases


def choose(logits: np.ndarray, cases: Cases) -> np.ndarray:
    """Return a weight in [0, 1] for each model, float64 [K]; they sum to 1.

    Equal weights are hard to beat with few cases, since fitted ones add the noise of the fit to the
    mean. So fitted weights are taken only where they lower the cross-fitted log loss by more than
    its standard error.

    Args:
      logits: calibrated logits of each model, float [K, N].
      cases: the N images, which no model was trained on. Their `label` and `patient_id` are read.
    """
    equal = np.full(len(logits), 1 / len(logits))
    if not fit_scaling.can_be_fitted(cases.label):
        logging.warning("There are too few images to fit weights on; all models weigh the same.")
        return equal
    fold = fit_scaling.assign_folds(cases)
    probability = np.empty((2, cases.label.size))
    for k in np.unique(fold):
        seen, held_out = fold != k, fold == k
        if not 0 < cases.label[seen].sum() < seen.sum():
            return equal
        for i, weight in enumerate((equal, _fit(logits[:, seen], cases.label[seen]))):
            slope, intercept = fit_scaling.fit_platt(weight @ logits[:, seen], cases.label[seen])
            score = slope * (weight @ logits[:, held_out]) + intercept
            probability[i, held_out] = 1 / (1 + np.exp(-score))
    losses = [fit_scaling.compute_losses(cases.label, p) for p in probability]
    by_name = dict(zip(("equal", "fitted"), losses, strict=True))
    chosen = fit_scaling.choose_method(by_name, cases.patient_id)
    logging.info(
        "Log loss on %d held-out images: %.4f with equal weights, %.4f with fitted ones; the %s"
        " ones are taken.",
        len(cases),
        losses[0].mean(),
        losses[1].mean(),
        chosen,
    )
    return equal if chosen == "equal" else _fit(logits, cases.label)


def _fit(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Fit weights, float64 [K], by logistic regression with coefficients of at least 0.

    They are equal where the regression finds no use for any model.
    """
    target = fit_scaling.smooth_targets(label)

    def loss(line: np.ndarray) -> float:
        return fit_scaling.compute_log_loss(line[:-1] @ logits + line[-1], target)

    start = np.array([1 / len(logits)] * len(logits) + [0.0])
    bounds: Sequence[tuple[float | None, None]] = [(0.0, None)] * len(logits) + [(None, None)]
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x[:-1]
    return found / found.sum() if found.sum() > 0 else start[:-1]
