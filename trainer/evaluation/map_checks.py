"""Check whether the class activation maps of a network are faithful: five sanity checks.

- randomisation: a network with permuted weights gives another map (Adebayo et al. 2018,
  arXiv:1810.03292).
- flip: the map of the mirrored image is the mirrored map.
- sign: the regions that the map shows raise the logit. Hiding them lowers the logit more than
  hiding random regions of the same area; showing only them raises it more (areas between deletion
  and insertion curves, Petsiuk et al. 2018, arXiv:1806.07421).
- evidence: the sum of the map is higher in positive images. The head's weights matter for that: if
  they are permuted, the head hardly ever separates the labels as well.
- localisation: if masks are given, the map lies on them, more than the middle and the brightest
  region of the image do.

A check passes if the 95 % confidence interval over images lies on the right side of its limit.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from sklearn.metrics import roc_auc_score

from trainer.evaluation import bootstrap, cases, localisation
from trainer.evaluation.deletion_curves import Serve, compute_curves
from trainer.network import model as model_lib
from trainer.network.serving import Network, serving_function
from trainer.program import telemetry, text_table
from trainer.program.progress import show_each

CHECKS = ("randomisation", "flip", "sign", "evidence", "localisation")
MOST_IMAGES = 96
MOST_MASKS = 512
FEWEST_IMAGES = 16
"""Smallest number of suitable images with which a check measures anything."""
RANDOM_CORRELATION, FLIP_CORRELATION = 0.6, 0.3
"""Upper limit for maps of permuted weights and lower limit for mirrored maps.

Both are the mean correlation of their cells with those of the map itself.
"""
HEAD_ORDERS, AS_GOOD = 999, 9
"""Number of permutations of the head's weights, and how many may separate the labels as well.

That is a permutation test at the level (9 + 1) / (999 + 1) = 1 %.
"""
_PLACES = {"centre": "the middle of the image", "brightest": "its brightest region"}
_BATCH = 32


def check(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Run all checks.

    Args:
      network: trained network; it is not changed.
      images: uint8 [N, size, size, 1], on which the network was not trained.
      labels: int [N], 1 for positive, if known.
      masks: bool [N, size, size], if known: the findings of each image; empty if it has none.
      seed: seed of the permutations and resamples.

    Returns:
      By name of the check: `passed` (None if it could not be measured), `said` (the result in
        words),
      and the measured values.
    """
    rng = np.random.default_rng(seed)
    rows = cases.spread_over_labels(
        labels if labels is not None else np.zeros(len(images), int), MOST_IMAGES
    )
    everything, images = images, images[rows]
    labels = None if labels is None else np.asarray(labels)[rows]
    if len(images) < FEWEST_IMAGES:
        return {name: _report_too_few(f"{len(images)} images") for name in CHECKS}
    logging.info("Checking on %d images whether the maps are faithful.", len(images))
    serve = make_serve(network)
    logit, maps = serve(images)
    if np.ptp(maps, axis=(1, 2)).max() == 0 or not np.isfinite(maps).all():
        degenerate = {"passed": False, "said": "every map is constant or not a number"}
        return dict.fromkeys(CHECKS, degenerate)
    positive = (
        np.flatnonzero(labels == 1)
        if labels is not None
        else np.argsort(-logit)[: max(FEWEST_IMAGES, len(logit) // 2)]
    )
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "randomisation": lambda: _check_randomisation(network, images, maps, rng),
        "flip": lambda: _check_flip(network, images),
        "sign": lambda: _check_sign(serve, images[positive], maps[positive], rng),
        "evidence": lambda: _check_evidence(network, images, maps, labels, rng),
        "localisation": lambda: _check_localisation(serve, everything, masks),
    }
    return {name: checks[name]() for name in show_each(checks, "checking the maps", "checks")}


def format_table(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the results of the checks as a table for a terminal."""
    verdicts = {True: "passed", False: "FAILED", None: "not measured"}
    rows = [(name, verdicts[found["passed"]], found["said"]) for name, found in checks.items()]
    return text_table.align(("check of the maps", "result", "what was found"), rows)


def make_serve(network: Network) -> Serve:
    """Return a function that runs the network in batches."""
    function = serving_function(network)

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        outputs = [function(tf.constant(batch)) for batch in telemetry.report_each(batches)]
        return tuple(
            np.concatenate([output[name].numpy() for output in outputs])
            for name in ("logit", "cam")
        )  # type: ignore[return-value]

    return serve


def _check_randomisation(
    network: Network, images: np.ndarray, maps: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    shuffled = dataclasses.replace(
        network,
        members=tuple(
            dataclasses.replace(m, model=_shuffle_weights(m.model, rng)) for m in network.members
        ),
    )
    alike = localisation.compute_interval(_correlate_maps(maps, make_serve(shuffled)(images)[1]))
    said = (
        f"maps of the network with permuted weights correlate with its own by "
        f"{_format_interval(alike)}; at most {RANDOM_CORRELATION} is allowed"
    )
    return {"passed": alike["high"] <= RANDOM_CORRELATION, "said": said, "correlation": alike}


def _shuffle_weights(model: keras.Model, rng: np.random.Generator) -> keras.Model:
    """Return a copy of the model whose kernels contain the same numbers in another order."""
    copy = keras.models.clone_model(model)
    copy.set_weights(
        [rng.permuted(w.ravel()).reshape(w.shape) if w.ndim > 1 else w for w in model.get_weights()]
    )
    return copy


def _check_flip(network: Network, images: np.ndarray) -> dict[str, Any]:
    # Averaging over an image and its mirror image would let every network pass.
    serve = make_serve(dataclasses.replace(network, flips="none"))
    alike = localisation.compute_interval(
        _correlate_maps(serve(images)[1], serve(images[:, :, ::-1])[1][:, :, ::-1])
    )
    said = (
        f"maps of mirrored images, mirrored back, correlate with the maps by "
        f"{_format_interval(alike)}; at least {FLIP_CORRELATION} is required"
    )
    return {"passed": alike["low"] >= FLIP_CORRELATION, "said": said, "correlation": alike}


def _check_sign(
    serve: Serve, images: np.ndarray, maps: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    if len(images) < FEWEST_IMAGES:
        return _report_too_few(f"{len(images)} positive images")
    curves = compute_curves(serve, images, maps, rng)
    deletion = localisation.compute_interval(
        (curves["random_deletion"] - curves["deletion"]).mean(axis=0)
    )
    insertion = localisation.compute_interval(
        (curves["insertion"] - curves["random_insertion"]).mean(axis=0)
    )
    said = (
        f"hiding what the map shows lowers the logit by {_format_interval(deletion)} more than "
        "hiding random regions of the same area, showing only it raises it by "
        f"{_format_interval(insertion)} more; both must be above 0"
    )
    return {
        "passed": min(deletion["low"], insertion["low"]) > 0,
        "said": said,
        "deletion": deletion,
        "insertion": insertion,
        "curves": {name: logits.mean(axis=1).round(4).tolist() for name, logits in curves.items()},
    }


def _check_evidence(
    network: Network,
    images: np.ndarray,
    maps: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    if labels is None or min((labels == 1).sum(), (labels == 0).sum()) < FEWEST_IMAGES:
        return _report_not_measured("there are too few images of each label")
    strength = maps.sum(axis=(1, 2))
    parts = [np.flatnonzero(labels == value) for value in (0, 1)]
    drawn = [np.concatenate([rng.choice(part, len(part)) for part in parts]) for _ in range(500)]
    scores = [roc_auc_score(labels[rows], strength[rows]) for rows in drawn]
    low, high = np.quantile(scores, bootstrap.TAILS)
    area = {"value": float(roc_auc_score(labels, strength)), "low": float(low), "high": float(high)}
    own, *others = _compute_margins(network, images, labels, rng)
    as_good = sum(margin >= own for margin in others)
    separates, is_rare, verdict = area["low"] > 0.5, as_good <= AS_GOOD, ("failed", "passed")
    said = (
        "the sum of a map separates positive from negative images with an AUROC of "
        f"{_format_interval(area)}, above 0.5 is required ({verdict[separates]}); {as_good} of "
        f"{HEAD_ORDERS} permutations of the head's weights separate them as well, at most "
        f"{AS_GOOD} are allowed ({verdict[is_rare]})"
    )
    passed = separates and is_rare
    return {"passed": passed, "said": said, "auroc": area, "as_good_heads": as_good}


def _compute_margins(
    network: Network, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> list[float]:
    """Compute the difference of the mean logits of positive and of negative images.

    Returns:
      The difference of the network itself, then that with each of `HEAD_ORDERS` permutations of the
      weights of the head's last layer.
    """
    margins = np.zeros(1 + HEAD_ORDERS)
    for member in network.members:
        last = model_lib.head_layers(member.model)[-1]
        inputs = keras.Model(member.model.input, last.input).predict(images, _BATCH, verbose=0)
        weights = last.kernel.numpy()[:, 0]
        orders = np.stack([weights, *(rng.permutation(weights) for _ in range(HEAD_ORDERS))])
        apart = inputs[labels == 1].mean(axis=0) - inputs[labels == 0].mean(axis=0)
        margins += orders @ apart / (member.temperature * len(network.members))
    return margins.tolist()


def _check_localisation(
    serve: Serve, images: np.ndarray, masks: np.ndarray | None
) -> dict[str, Any]:
    if masks is None:
        return _report_not_measured("no masks are known")
    marked = np.flatnonzero(masks.any(axis=(1, 2)))[:MOST_MASKS]
    if len(marked) < FEWEST_IMAGES:
        return _report_too_few(f"{len(marked)} images with a mask")
    images, masks = images[marked], masks[marked]
    own = localisation.score_maps(serve(images)[1], masks)
    others = {
        name: localisation.score_maps(baseline(images), masks)
        for name, baseline in localisation.BASELINES.items()
    }
    ahead = {
        name: localisation.compute_interval(own["energy"] - scored["energy"])
        for name, scored in others.items()
    }
    figures = _compute_intervals(own)
    baselines = {name: _compute_intervals(scored) for name, scored in others.items()}
    leads = [
        f"{_format_interval(lead)} more than that of {_PLACES[name]}"
        for name, lead in ahead.items()
    ]
    said = (
        f"the share of the map inside the masks is {_format_interval(figures['energy'])}, "
        f"{' and '.join(leads)}; both must be above 0"
    )
    return {
        "passed": min(lead["low"] for lead in ahead.values()) > 0,
        "said": said,
        **figures,
        "ahead": ahead,
        "baselines": baselines,
    }


def _compute_intervals(scored: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {metric: localisation.compute_interval(values) for metric, values in scored.items()}


def _correlate_maps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate the cells of each pair of maps, float [N]; 0 if one of the two is constant."""
    a, b = (
        one.reshape(len(one), -1) - one.reshape(len(one), -1).mean(axis=1, keepdims=True)
        for one in (a, b)
    )
    length = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), length, out=np.zeros(len(a)), where=length > 0)


def _report_too_few(found: str) -> dict[str, Any]:
    return _report_not_measured(f"{found} are too few; {FEWEST_IMAGES} are needed")


def _report_not_measured(why: str) -> dict[str, Any]:
    return {"passed": None, "said": why}


def _format_interval(measured: Mapping[str, float]) -> str:
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"
