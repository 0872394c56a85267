"""Cross-validate: train one network for each fold and score the images that it has not seen.

The images of `train` and `validation` are divided into folds of similar size and share of
positives, with no patient in two of them. Network k trains on all folds but k. Its logits of fold
k, divided by the temperature that fits them, are `out of fold`: together they say how good the
recipe is on new patients, and the operating point is fitted on them. The ensemble averages the
calibrated logits and maps of all networks (Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import sklearn.metrics
import sklearn.model_selection
import tensorflow as tf
from absl import logging

from trainer.dataset import prepared_split
from trainer.dataset.prepared_split import Split
from trainer.errors import DataError
from trainer.evaluation import fit_scaling, predictions
from trainer.network import model as model_lib
from trainer.network.flips import Flips
from trainer.network.serving import Member, Network
from trainer.publishing import results
from trainer.publishing.results import FinishedRun
from trainer.publishing.trained import Origin, ScoredSplit, TrainingResult
from trainer.tracking.tracker import Tracker
from trainer.training import flip_choice
from trainer.training import strategy as strategy_lib
from trainer.training.build_run import build_run
from trainer.training.fit import fit
from trainer.training.job import TrainingJob

OUT_OF_FOLD = "out_of_fold"
PREDICTIONS = "out_of_fold.csv"


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A trained network and its calibrated logits of images that it has not seen.

    Attributes:
      rows: int [n], the images of this fold among all.
      logit: float [n], of those images.
      test_logit: float [t], of the test split.
    """

    network: Network
    origin: Origin
    rows: np.ndarray
    logit: np.ndarray
    test_logit: np.ndarray
    history: Sequence[Mapping[str, float]]


def train_folds(
    job: TrainingJob, strategy: tf.distribute.Strategy, tracker: Tracker
) -> FinishedRun:
    """Train every fold and export the best single network; a fold that was interrupted continues.

    The workdir gets what one run leaves, for the ensemble, and besides: `fold-K/` with the history
    and checkpoints of each network; `artifact_single/`, the network with the highest AUROC on its
    fold; and `out_of_fold.csv`.

    Returns:
      The ensemble and its scored images, with a row for each fold.

    Raises:
      DataError: fewer patients of either class than folds.
    """
    cache = job.settings.cache
    pool = prepared_split.load_split(job.data_dir, "train+validation", cache)
    test = prepared_split.load_split(job.data_dir, "test", cache)
    fold_of = assign_folds(pool, job.folds, job.settings.seed)
    _warn_of_optimism(job.settings)
    scored = [_train_fold(job, strategy, tracker, pool, test, fold_of, k) for k in range(job.folds)]
    # One decision for all networks, since the artifact scores an image with all of them.
    logits = {
        flips: _collect_logits([fold[flips] for fold in scored], len(pool)) for flips in scored[0]
    }
    chosen = flip_choice.choose(pool.labels, logits)
    folds = [fold[chosen.flips] for fold in scored]
    rows = [_describe_fold(k, pool.select(fold.rows), fold) for k, fold in enumerate(folds)]
    held_out = ScoredSplit(pool, logits[chosen.flips])
    if strategy_lib.is_chief(strategy):
        predictions.write_csv(
            f"{job.workdir}/{PREDICTIONS}", held_out.compute_cases(), {"fold": fold_of + 1}
        )
        best = max(range(len(folds)), key=lambda k: rows[k]["auroc"] or 0.0)
        single = _finish_single(job, pool, test, folds[best], chosen.gains)
        results.export_with_metrics(single, f"{job.workdir}/artifact_single")
    return _finish_ensemble(job, held_out, test, folds, rows, chosen.gains)


def assign_folds(pool: Split, folds: int, seed: int) -> np.ndarray:
    """Return the fold of every image, int [N] in [0, folds); patients stay together.

    Folds have similar shares of positives.

    Raises:
      DataError: fewer patients with, or without, a positive image than folds.
    """
    for label, word in ((1, "positive"), (0, "negative")):
        patients = len(np.unique(pool.patient_id[pool.labels == label]))
        if patients < folds:
            advice = (
                f"ask for at most {patients} folds" if patients > 1 else "omit --folds, or add some"
            )
            raise DataError(
                f"--folds={folds}: too few patients have a {word} image ({patients}); {advice}"
            )
    splitter = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # Sorted by path, so that the order of the records doesn't matter.
    order = np.argsort(pool.path, kind="stable")
    fold_of = np.empty(len(pool), np.int64)
    for k, (_, held_out) in enumerate(
        splitter.split(order, pool.labels[order], pool.patient_id[order])
    ):
        fold_of[order[held_out]] = k
    return fold_of


def _warn_of_optimism(settings: ml_collections.FrozenConfigDict) -> None:
    """Warn where the settings let the figures of held-out images look better than they are."""
    if settings.monitor != "last":
        logging.warning(
            "monitor=%s chooses epochs on the images that are held out: out-of-fold figures are"
            " optimistic; monitor=last avoids that",
            settings.monitor,
        )
    if model_lib.is_earlier_run(settings.weights):
        logging.warning(
            "weights=%s come from an earlier run: where it trained on images that are held out"
            " here, out-of-fold figures, temperatures and threshold are optimistic; for folds,"
            " pre-train on other body parts only",
            settings.weights,
        )


def _train_fold(
    job: TrainingJob,
    strategy: tf.distribute.Strategy,
    tracker: Tracker,
    pool: Split,
    test: Split,
    fold_of: np.ndarray,
    k: int,
) -> dict[Flips, _Fold]:
    """Train the network of fold `k`, from 0, and score the images that it has not seen.

    Returns:
      The fold by each of the candidates of `flip_choice`.
    """
    rows = np.flatnonzero(fold_of == k)
    train, held_out = pool.select(np.flatnonzero(fold_of != k)), pool.select(rows)
    logging.info(
        "Fold %d of %d: %d images to train on, %d held out.",
        k + 1,
        job.folds,
        len(train),
        len(held_out),
    )
    # The layers of every fold get the names that they would have alone, and earlier graphs are
    # freed.
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    run = build_run(job.for_fold(k + 1), strategy, train, held_out)
    state = fit(run, functools.partial(tracker.log_history, fold=f"fold-{k + 1}"))
    run = run.convert_to_float32()
    candidates = flip_choice.list_candidates(job.settings)
    logits, test_logits = run.score(held_out, candidates), run.score(test, candidates)
    scored = {}
    for flips in candidates:
        temperature = fit_scaling.fit_temperature(logits[flips], held_out.labels)
        scored[flips] = _Fold(
            Network((Member(run.model, run.architecture, temperature),), flips),
            run.origin,
            rows,
            logits[flips] / temperature,
            test_logits[flips] / temperature,
            state.history,
        )
    return scored


def _finish_ensemble(
    job: TrainingJob,
    held_out: ScoredSplit,
    test: Split,
    folds: Sequence[_Fold],
    rows: Sequence[Mapping[str, Any]],
    gains: Mapping[Flips, float],
) -> FinishedRun:
    """Return the ensemble of all networks as one run."""
    network = dataclasses.replace(
        folds[0].network, members=tuple(fold.network.members[0] for fold in folds)
    )
    test_logit = np.mean([fold.test_logit for fold in folds], axis=0)
    trained = TrainingResult(network, held_out.split, held_out, folds[0].origin, gains)
    history = _average_histories([fold.history for fold in folds])
    return job.finish(trained, OUT_OF_FOLD, ScoredSplit(test, test_logit), history, rows)


def _finish_single(
    job: TrainingJob, pool: Split, test: Split, fold: _Fold, gains: Mapping[Flips, float]
) -> FinishedRun:
    """Return the network of one fold as a run."""
    train = pool.select(np.setdiff1d(np.arange(len(pool)), fold.rows))
    held_out = ScoredSplit(pool.select(fold.rows), fold.logit)
    trained = TrainingResult(fold.network, train, held_out, fold.origin, gains)
    return job.finish(trained, OUT_OF_FOLD, ScoredSplit(test, fold.test_logit), fold.history)


def _describe_fold(k: int, held_out: Split, fold: _Fold) -> dict[str, Any]:
    """Return the row of `metrics.json` for one fold."""
    both_classes = 0 < held_out.labels.sum() < len(held_out)
    auroc = sklearn.metrics.roc_auc_score(held_out.labels, fold.logit) if both_classes else None
    return {
        "fold": k + 1,
        "images": len(held_out),
        "positives": int(held_out.labels.sum()),
        "auroc": None if auroc is None else float(auroc),
        "temperature": fold.network.members[0].temperature,
        "epochs": len(fold.history),
    }


def _collect_logits(folds: Sequence[_Fold], images: int) -> np.ndarray:
    """Return the logit of every image by the network that has not seen it, float64 [images]."""
    logit = np.empty(images, np.float64)
    for fold in folds:
        logit[fold.rows] = fold.logit
    return logit


def _average_histories(
    histories: Sequence[Sequence[Mapping[str, float]]],
) -> list[dict[str, float]]:
    """Return the mean over folds of each epoch, up to the last epoch of the shortest history."""
    return [
        {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for rows in zip(*histories, strict=False)
    ]
