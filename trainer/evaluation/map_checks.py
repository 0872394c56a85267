"""Do the maps of a network mean anything? Five checks, each of which a network must pass before its pictures are believed.

    randomisation   weights put in another order give another map (Adebayo et al. 2018, arXiv:1810.03292)
    flip            the map of the mirror image is the mirror image of the map
    sign            what the map shows raises the logit: painting it over lowers the logit more than painting over as much elsewhere
                    does, showing it alone raises it more (areas between curves of deletion and insertion, arXiv:1806.07421)
    evidence        images that are labelled positive have more of it than the others, and the head knows which features speak for
                    that: with its weights in another order it hardly ever tells the labels as far apart
    localisation    where masks are known: it lies on them, more than the middle or the brightest region of the image does

A check passes when the 95 % interval of what it measures, over images, lies on the right side of its limit.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
from absl import logging
from sklearn.metrics import roc_auc_score

from trainer.evaluation import bootstrap, localisation
from trainer.network import model as model_lib
from trainer.network.serving import Network, serving_function
from trainer.program import telemetry

CHECKS = ("randomisation", "flip", "sign", "evidence", "localisation")
MOST_IMAGES = 96
MOST_MASKS = 512
FEWEST_IMAGES = 16
"""Of the kind that a check needs; of fewer it measures nothing."""
RANDOM_CORRELATION, FLIP_CORRELATION = 0.6, 0.3
"""A map may be at most, and the mirrored map must be at least, so alike to the map itself: mean correlation of their cells."""
HEAD_ORDERS, AS_GOOD = 999, 9
"""Other orders of the head's weights, and how many of them may tell the labels as far apart: one in a hundred."""
_SHARES = np.arange(1, 6) / 10
"""Of the cells, along a curve: what a map shows is no more than half of it."""
_BATCH = 32

Serve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 [N, size, size, 1] -> logit [N], map [N, h, w]."""


def check(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Runs all checks.

    Args:
      network: trained; it is not changed.
      images: uint8 [N, size, size, 1], not trained on.
      labels: int [N], 1 for positive, where known.
      masks: bool [N, size, size], where known: what makes an image positive, empty where nothing does.

    Returns:
      By name of the check: `passed` (None where it could not be measured), `said` in half a sentence, and figures of their own.
    """
    rng = np.random.default_rng(seed)
    rows = select_rows(labels if labels is not None else np.zeros(len(images), int))
    everything, images = images, images[rows]
    labels = None if labels is None else np.asarray(labels)[rows]
    if len(images) < FEWEST_IMAGES:
        return {name: _report_not_measured(f"{len(images)} images are too few") for name in CHECKS}
    logging.info("Checking on %d images whether the maps mean something.", len(images))
    serve = _make_serve(network)
    logit, maps = serve(images)
    if np.ptp(maps, axis=(1, 2)).max() == 0 or not np.isfinite(maps).all():
        dead = {"passed": False, "said": "every map is flat or not a number"}
        return dict.fromkeys(CHECKS, dead)
    positive = (
        np.flatnonzero(labels == 1)
        if labels is not None
        else np.argsort(-logit)[: max(FEWEST_IMAGES, len(logit) // 2)]
    )
    return {
        "randomisation": _check_randomisation(network, images, maps, rng),
        "flip": _check_flip(network, images),
        "sign": _check_sign(serve, images[positive], maps[positive], rng),
        "evidence": _check_evidence(network, images, maps, labels, rng),
        "localisation": _check_localisation(serve, everything, masks),
    }


def format_table(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """What was found as Markdown."""
    said = {True: "passed", False: "FAILED", None: "not measured"}
    rows = [
        f"| {name} | {said[found['passed']]} | {found['said']} |" for name, found in checks.items()
    ]
    return "\n".join(["| check of the maps | | |", "|---|---|---|", *rows])


def select_rows(labels: np.ndarray) -> np.ndarray:
    """The rows that are looked at: at most `MOST_IMAGES`, taken evenly, half of them of each kind where that can be had."""
    kinds = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    share = MOST_IMAGES // max(1, len(kinds))
    taken = [
        kind[np.unique(np.linspace(0, len(kind) - 1, min(len(kind), share)).astype(int))]
        for kind in kinds
    ]
    return np.sort(np.concatenate(taken)) if taken else np.array([], int)


def _make_serve(network: Network) -> Serve:
    function = serving_function(network, 1.0)

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        outputs = [function(tf.constant(batch)) for batch in telemetry.beating(batches)]
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
    alike = localisation.compute_interval(_correlate_maps(maps, _make_serve(shuffled)(images)[1]))
    said = f"maps of the network with its weights shuffled correlate by {_format_interval(alike)} with its own; at most {RANDOM_CORRELATION} is allowed"
    return {"passed": alike["high"] <= RANDOM_CORRELATION, "said": said, "correlation": alike}


def _shuffle_weights(model: keras.Model, rng: np.random.Generator) -> keras.Model:
    """A copy whose kernels hold the same numbers in another order."""
    copy = keras.models.clone_model(model)
    copy.set_weights(
        [rng.permuted(w.ravel()).reshape(w.shape) if w.ndim > 1 else w for w in model.get_weights()]
    )
    return copy


def _check_flip(network: Network, images: np.ndarray) -> dict[str, Any]:
    # The mean over an image and its mirror image would pass, whatever the network does.
    serve = _make_serve(dataclasses.replace(network, mirrored=False))
    alike = localisation.compute_interval(
        _correlate_maps(serve(images)[1], serve(images[:, :, ::-1])[1][:, :, ::-1])
    )
    said = f"maps of mirrored images, mirrored back, correlate by {_format_interval(alike)} with the maps; at least {FLIP_CORRELATION} is wanted"
    return {"passed": alike["low"] >= FLIP_CORRELATION, "said": said, "correlation": alike}


def _check_sign(
    serve: Serve, images: np.ndarray, maps: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    if len(images) < FEWEST_IMAGES:
        return _report_not_measured(f"{len(images)} positive images are too few")
    blurred = np.stack(
        [cv2.GaussianBlur(image, (0, 0), image.shape[0] / 10)[..., None] for image in images]
    )
    falling = (-maps.reshape(len(maps), -1)).argsort(axis=1)

    def curve(under: np.ndarray, over: np.ndarray, order: Callable[[], np.ndarray]) -> np.ndarray:
        """Logits, float [shares, N], while growing shares of the cells are taken from `over` instead of `under`."""
        mixed = [_mix_images(under, over, order(), share, maps.shape[1:]) for share in _SHARES]
        return np.array([serve(some)[0] for some in mixed])

    by_map, random = (lambda: falling), (lambda: rng.permuted(falling, axis=1))
    curves = {
        "deletion": curve(images, blurred, by_map),
        "random_deletion": curve(images, blurred, random),
        "insertion": curve(blurred, images, by_map),
        "random_insertion": curve(blurred, images, random),
    }
    deletion = localisation.compute_interval(
        (curves["random_deletion"] - curves["deletion"]).mean(axis=0)
    )
    insertion = localisation.compute_interval(
        (curves["insertion"] - curves["random_insertion"]).mean(axis=0)
    )
    said = (
        f"painting over what the map shows lowers the logit by {_format_interval(deletion)} more than painting over as much elsewhere, "
        f"showing it alone raises it by {_format_interval(insertion)} more; both must be above 0"
    )
    return {
        "passed": min(deletion["low"], insertion["low"]) > 0,
        "said": said,
        "deletion": deletion,
        "insertion": insertion,
        "curves": {name: logits.mean(axis=1).round(4).tolist() for name, logits in curves.items()},
    }


def _mix_images(
    under: np.ndarray, over: np.ndarray, order: np.ndarray, share: float, grid: tuple[int, ...]
) -> np.ndarray:
    """uint8 [N, size, size, 1]: `under`, but for the first cells of an order, int [N, cells], which are those of `over`."""
    size, cells = under.shape[1], order.shape[1]
    chosen = np.zeros(order.shape, np.uint8)
    np.put_along_axis(chosen, order[:, : max(1, round(share * cells))], 1, axis=1)
    place = [
        cv2.resize(one.reshape(grid), (size, size), interpolation=cv2.INTER_NEAREST)
        for one in chosen
    ]
    return np.where(np.stack(place)[..., None] > 0, over, under)


def _check_evidence(
    network: Network,
    images: np.ndarray,
    maps: np.ndarray,
    labels: np.ndarray | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    if labels is None or min((labels == 1).sum(), (labels == 0).sum()) < FEWEST_IMAGES:
        return _report_not_measured("labels of both kinds are too few")
    strength = maps.sum(axis=(1, 2))
    parts = [np.flatnonzero(labels == value) for value in (0, 1)]
    drawn = [np.concatenate([rng.choice(part, len(part)) for part in parts]) for _ in range(500)]
    low, high = np.quantile([roc_auc_score(labels[rows], strength[rows]) for rows in drawn], _TAILS)
    area = {"value": float(roc_auc_score(labels, strength)), "low": float(low), "high": float(high)}
    own, *others = _compute_margins(network, images, labels, rng)
    as_good = sum(margin >= own for margin in others)
    said = (
        f"the sum of a map tells positive from negative images with an AUROC of {_format_interval(area)}, above 0.5 is wanted; the head's weights "
        f"in another order tell them as far apart in {as_good} of {HEAD_ORDERS} cases, at most {AS_GOOD} are allowed"
    )
    return {
        "passed": area["low"] > 0.5 and as_good <= AS_GOOD,
        "said": said,
        "auroc": area,
        "as_good_heads": as_good,
    }


def _compute_margins(
    network: Network, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> list[float]:
    """By how much the mean logit of positive images lies above that of negative ones: of the network, then with the weights of its
    head's last layer in each of `HEAD_ORDERS` other orders."""
    margins = np.zeros(1 + HEAD_ORDERS)
    for member in network.members:
        last = model_lib.head_layers(member.model)[-1]
        inputs = keras.Model(member.model.input, last.input).predict(images, _BATCH, verbose=0)
        weights = last.kernel.numpy()[:, 0]
        orders = np.stack([weights, *(rng.permutation(weights) for _ in range(HEAD_ORDERS))])
        apart = inputs[labels == 1].mean(axis=0) - inputs[labels == 0].mean(axis=0)
        margins += orders @ apart / (member.temperature * len(network.members))
    return margins.tolist()


_TAILS = ((1 - bootstrap.CONFIDENCE) / 2, (1 + bootstrap.CONFIDENCE) / 2)


def _check_localisation(
    serve: Serve, images: np.ndarray, masks: np.ndarray | None
) -> dict[str, Any]:
    if masks is None:
        return _report_not_measured("no masks are known")
    marked = np.flatnonzero(masks.any(axis=(1, 2)))[:MOST_MASKS]
    if len(marked) < FEWEST_IMAGES:
        return _report_not_measured(f"{len(marked)} images with a mask are too few")
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
    said = (
        f"the share of the map inside the masks is {_format_interval(figures['energy'])}, "
        f"{' and '.join(f'{_format_interval(lead)} more than that of the {name}' for name, lead in ahead.items())}; more is wanted"
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
    """Of the cells of each pair of maps, float [N]; 0 where one of them is flat."""
    a, b = (
        one.reshape(len(one), -1) - one.reshape(len(one), -1).mean(axis=1, keepdims=True)
        for one in (a, b)
    )
    length = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), length, out=np.zeros(len(a)), where=length > 0)


def _report_not_measured(why: str) -> dict[str, Any]:
    return {"passed": None, "said": why}


def _format_interval(measured: Mapping[str, float]) -> str:
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"
