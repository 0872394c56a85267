"""Folds: as many networks as folds, each judged on the images that it didn't see, and all of them asked together.

The images of `train` and `validation` are divided into folds of like size and like share of positives, no patient in two of them.
Network k trains on all folds but k. Its logits of fold k, divided by the temperature that fits them, are `out of fold`: together
they say how good the recipe is on new patients, and the operating point is fitted on them. The ensemble averages the calibrated
logits and maps of all networks (Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import scipy.special
import sklearn.metrics
import sklearn.model_selection
import tensorflow as tf
from absl import logging

from trainer.dataset import input_pipeline
from trainer.dataset.input_pipeline import Split
from trainer.errors import DataError
from trainer.evaluation import calibration
from trainer.network import model as model_lib
from trainer.network.serving import Member, Network
from trainer.publishing import results
from trainer.publishing.results import Scored, Trained
from trainer.storage import write_text
from trainer.training import strategy as strategy_lib
from trainer.training.build_run import assemble
from trainer.training.fit import fit

OUT_OF_FOLD = "out_of_fold"
PREDICTIONS = "out_of_fold.csv"


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A trained network and what it says of images it hasn't seen, calibrated: float [n] of its fold, [t] of the test split."""

    network: Network
    members: np.ndarray
    logit: np.ndarray
    test_logit: np.ndarray
    history: Sequence[Mapping[str, float]]


def train_folds(
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    strategy: tf.distribute.Strategy,
    data_dir: str,
    workdir: str,
    folds: int,
) -> dict[str, Any]:
    """Trains every fold, exports the ensemble and the best single network; a fold that was interrupted goes on where it was.

    Args:
      dataset: metadata of the prepared data.
      workdir: gets what one run leaves, for the ensemble; `fold-K/` with the history and checkpoints of each; `artifact_single/`,
        the network with the highest AUROC on its fold; `out_of_fold.csv`.

    Returns:
      The content of `metrics.json`: `test` of the ensemble, `out_of_fold`, and `folds`, a row for each.

    Raises:
      DataError: fewer patients of either class than folds. Else as `train.train_and_evaluate`.
    """
    pool = input_pipeline.load_split(data_dir, "train+validation", config.cache)
    test = input_pipeline.load_split(data_dir, "test", config.cache)
    fold_of = assign(pool, folds, config.seed)
    if config.monitor != "last":
        logging.warning(
            "monitor=%s chooses epochs on the images that are held out: out-of-fold figures are optimistic; monitor=last is honest",
            config.monitor,
        )
    if model_lib.is_earlier_run(config.weights):
        logging.warning(
            "weights=%s come from an earlier run: where it trained on images that are held out here, out-of-fold figures, temperatures "
            "and threshold are optimistic; for folds, pre-train on other body parts only",
            config.weights,
        )
    trained = []
    for k in range(folds):
        train, held_out = (
            pool.select(np.flatnonzero(members)) for members in (fold_of != k, fold_of == k)
        )
        logging.info(
            "Fold %d of %d: %d images to train on, %d held out.",
            k + 1,
            folds,
            len(train),
            len(held_out),
        )
        trained.append(
            _train_fold(
                config,
                dataset,
                strategy,
                train,
                held_out,
                test,
                f"{workdir}/fold-{k + 1}",
                fold_of == k,
            )
        )
    if not strategy_lib.is_chief(strategy):
        return {}
    return _publish(workdir, config, dataset, pool, test, trained)


def assign(pool: Split, folds: int, seed: int) -> np.ndarray:
    """The fold of every image, int [N] in [0, folds): grouped by patient, stratified by label.

    Raises:
      DataError: fewer patients with, or without, a positive image than folds.
    """
    for label, word in ((1, "positive"), (0, "negative")):
        patients = len(np.unique(pool.patient_id[pool.labels == label]))
        if patients < folds:
            raise DataError(
                f"--folds={folds}: only {patients} patients have a {word} image; ask for at most {patients} folds"
            )
    splitter = sklearn.model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # In the order of the paths, so that the order of the records doesn't matter.
    order = np.argsort(pool.path, kind="stable")
    fold_of = np.empty(len(pool), np.int64)
    for k, (_, held_out) in enumerate(
        splitter.split(order, pool.labels[order], pool.patient_id[order])
    ):
        fold_of[order[held_out]] = k
    return fold_of


def _train_fold(
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    strategy: tf.distribute.Strategy,
    train: Split,
    held_out: Split,
    test: Split,
    workdir: str,
    members: np.ndarray,
) -> _Fold:
    # Layers of every fold get the names that they would have alone, and the graphs of earlier ones go.
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    model, architecture, run = assemble(config, strategy, dataset, train, held_out, workdir)
    state = fit(run, config)
    logit, test_logit = (
        run.loop.predict(split, config.global_batch_size, config.test_time_flip)
        for split in (held_out, test)
    )
    temperature = calibration.fit_temperature(logit, held_out.labels)
    network = Network(architecture, (Member(model, temperature),), config.test_time_flip)
    return _Fold(
        network,
        np.flatnonzero(members),
        logit / temperature,
        test_logit / temperature,
        state.history,
    )


def _publish(
    workdir: str,
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    pool: Split,
    test: Split,
    folds: Sequence[_Fold],
) -> dict[str, Any]:
    logit = np.empty(len(pool), np.float64)
    for fold in folds:
        logit[fold.members] = fold.logit
    rows = [_row(k, pool.select(fold.members), fold) for k, fold in enumerate(folds)]
    best = max(range(len(folds)), key=lambda k: rows[k]["auroc"] or 0.0)
    _write_predictions(workdir, pool, folds)
    _publish_single(workdir, config, dataset, pool, test, folds[best])
    network = dataclasses.replace(
        folds[0].network, members=tuple(fold.network.members[0] for fold in folds)
    )
    ensemble = Trained(
        network,
        train=pool,
        held_out=Scored(pool, logit),
        held_out_name=OUT_OF_FOLD,
        test=Scored(test, np.mean([fold.test_logit for fold in folds], axis=0)),
        history=_mean_history([fold.history for fold in folds]),
    )
    return results.publish(workdir, config, dataset, ensemble, rows)


def _publish_single(
    workdir: str,
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    pool: Split,
    test: Split,
    fold: _Fold,
) -> None:
    seen = pool.select(np.setdiff1d(np.arange(len(pool)), fold.members))
    held_out = Scored(pool.select(fold.members), fold.logit)
    single = Trained(
        fold.network, seen, held_out, OUT_OF_FOLD, Scored(test, fold.test_logit), fold.history
    )
    results.export_with_metrics(f"{workdir}/artifact_single", config, dataset, single)


def _row(k: int, held_out: Split, fold: _Fold) -> dict[str, Any]:
    """What `metrics.json` says of one fold."""
    both = 0 < held_out.labels.sum() < len(held_out)
    return {
        "fold": k + 1,
        "images": len(held_out),
        "positives": int(held_out.labels.sum()),
        "auroc": float(sklearn.metrics.roc_auc_score(held_out.labels, fold.logit))
        if both
        else None,
        "temperature": fold.network.members[0].temperature,
        "epochs": len(fold.history),
    }


def _write_predictions(workdir: str, pool: Split, folds: Sequence[_Fold]) -> None:
    """`out_of_fold.csv`: path, label, patient, fold, calibrated logit and probability of every image, in the order of the paths."""
    rows = [
        (
            pool.path[i],
            pool.labels[i],
            pool.patient_id[i],
            pool.study_id[i],
            k + 1,
            logit,
            scipy.special.expit(logit),
        )
        for k, fold in enumerate(folds)
        for i, logit in zip(fold.members, fold.logit.astype(float), strict=True)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "patient_id", "study_id", "fold", "logit", "probability"))
    writer.writerows(sorted(rows))
    write_text(f"{workdir}/{PREDICTIONS}", text.getvalue())


def _mean_history(histories: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The mean over folds, epoch by epoch, as far as the shortest went."""
    return [
        {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for rows in zip(*histories, strict=False)
    ]
