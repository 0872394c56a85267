r"""Compare the recipe with three baselines by cross-validation grouped by patient.

    humerus-prepare --source=fracatlas/labels.csv --layout=manifest --data_dir=data \
        --image_size=160 --validation_fraction=0 --test_fraction=0
    python -m benchmarks.cross_validation --data_dir=data --weights=xception_notop.weights.h5 \
        --workdir=runs/cross_validation

Arms: the size of the file alone (a shortcut would show here), a logistic regression on the pooled
features of the frozen network, the predecessor's recipe, and the recipe. After a stop, the same
command continues. Writes its table into benchmarks/README.md.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.tables import markdown, replace_table
from trainer.dataset import prepared_split
from trainer.dataset.prepared_split import Split
from trainer.evaluation import metric_tables, metrics
from trainer.evaluation.cases import Cases
from trainer.network import model as model_lib
from trainer.training import cross_validation

FOLDS, SEED = 5, 0
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to score the images: `probability` float [N], each by a model that hasn't seen the
    image's patient.
    """

    name: str
    probability: np.ndarray


def main() -> None:
    options = _options()
    pool = prepared_split.load_split(options.data_dir, "train+validation")
    pool = pool.select(np.argsort(pool.path))
    fold_of = cross_validation.assign_folds(pool, FOLDS, SEED)
    sizes = np.array([[float(row["width"]), float(row["height"])] for row in pool.attributes])
    arms = [
        Arm("width and height alone, logistic regression", regression(sizes, pool, fold_of)),
        Arm(
            "frozen features, logistic regression",
            regression(frozen_features(pool, options), pool, fold_of),
        ),
        *(
            Arm(f"recipe `{recipe}`", trained(recipe, pool, options))
            for recipe in options.recipes[:-1]
        ),
        Arm(
            f"recipe `{options.recipes[-1]}`, mirror image scored too",
            mirrored(options.recipes[-1], pool, options),
        ),
        Arm(f"recipe `{options.recipes[-1]}`", trained(options.recipes[-1], pool, options)),
    ]
    replace_table("cross_validation", table(pool, fold_of, arms))


def regression(features: np.ndarray, pool: Split, fold_of: np.ndarray) -> np.ndarray:
    """Out-of-fold probabilities of a balanced logistic regression on standardised features [N, C];
    float [N].

    The strength of its regularisation is chosen inside each training part, by folds of patients
    again.
    """
    probability = np.empty(len(pool))
    for k in range(FOLDS):
        seen, unseen = fold_of != k, fold_of == k
        strengths = 10.0 ** np.arange(-5, 2)
        inner = cross_validation.assign_folds(pool.select(np.flatnonzero(seen)), FOLDS, SEED + 1)
        scores = [
            _inner_auroc(features[seen], pool.labels[seen], inner, strength)
            for strength in strengths
        ]
        best = _regression(strengths[int(np.argmax(scores))]).fit(features[seen], pool.labels[seen])
        probability[unseen] = best.predict_proba(features[unseen])[:, 1]
    return probability


def _inner_auroc(
    features: np.ndarray, labels: np.ndarray, inner: np.ndarray, strength: float
) -> float:
    score = np.empty(len(labels))
    for k in range(FOLDS):
        model = _regression(strength).fit(features[inner != k], labels[inner != k])
        score[inner == k] = model.decision_function(features[inner == k])
    return float(roc_auc_score(labels, score))


def _regression(strength: float):
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    )


def frozen_features(pool: Split, options: argparse.Namespace) -> np.ndarray:
    """Average-pooled last feature map of the pre-trained backbone, float32 [N, C]."""
    architecture = model_lib.Architecture(options.backbone, "avg", ())
    model = model_lib.build(architecture, pool.images.shape[1], options.weights)
    # Called without a graph, Keras keeps every layer's output until the last one: 13 GB at 512 px.
    predict = tf.function(lambda images: model(images, training=False)[model_lib.POOLED])
    starts = range(0, len(pool), BATCH)
    return np.concatenate([predict(pool.images[start : start + BATCH]).numpy() for start in starts])


def trained(recipe: str, pool: Split, options: argparse.Namespace) -> np.ndarray:
    """Out-of-fold probabilities of `humerus-train --folds`, float [N], in the order of the pool."""
    workdir = pathlib.Path(options.workdir) / recipe
    command = [
        pathlib.Path(sys.executable).with_name("humerus-train"),
        f"--data_dir={options.data_dir}",
        f"--workdir={workdir}",
    ]
    command += [
        f"--config={recipe}",
        f"--config.backbone={options.backbone}",
        f"--config.weights={options.weights}",
        "--config.test_time_flips=none",
    ]
    subprocess.run([*command, f"--folds={FOLDS}", f"--config.seed={SEED}"], check=True)
    return np.array([float(row["probability"]) for row in _predictions(workdir, pool)])


def mirrored(recipe: str, pool: Split, options: argparse.Namespace) -> np.ndarray:
    """As `trained`, with the mean of the logits of every image and its mirror image."""
    trained(recipe, pool, options)
    workdir = pathlib.Path(options.workdir) / recipe
    fold_of = np.array([int(row["fold"]) for row in _predictions(workdir, pool)])
    folds = json.loads((workdir / "metrics.json").read_text())["folds"]
    logit = np.empty(len(pool))
    for row in folds:
        model = keras.models.load_model(
            workdir / "artifact" / f"model-{row['fold']}.keras", compile=False
        )
        unseen = np.flatnonzero(fold_of == row["fold"])
        images = pool.images[unseen]
        views = [
            model.predict(x, BATCH, verbose=0)[model_lib.LOGIT][:, 0]
            for x in (images, images[:, :, ::-1])
        ]
        logit[unseen] = np.mean(views, axis=0) / row["temperature"]
    return scipy.special.expit(logit)


def _predictions(workdir: pathlib.Path, pool: Split) -> list[dict[str, str]]:
    """Read the rows of `out_of_fold.csv`, in the order of the pool."""
    with (workdir / cross_validation.PREDICTIONS).open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    return [rows[path] for path in pool.path]


def table(pool: Split, fold_of: np.ndarray, arms: list[Arm]) -> str:
    """Format a row for each arm; the others are compared with the last one."""
    cases = [_cases(pool, arm) for arm in arms]
    rows = []
    for arm, scored in zip(arms, cases, strict=True):
        folds = [
            roc_auc_score(pool.labels[fold_of == k], arm.probability[fold_of == k])
            for k in range(FOLDS)
        ]
        measured = metrics.evaluate(scored, 0.5)["image"]
        row = metrics.compare(scored, cases[-1])["image"]["auroc"]
        gain = (
            ""
            if arm is arms[-1]
            else f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        )
        spread = f"{np.mean(folds):.3f} +- {np.std(folds, ddof=1):.3f}"
        rows.append(
            [
                arm.name,
                spread,
                *(metric_tables.format_interval(measured[name]) for name in ("auroc", "auprc")),
                gain,
            ]
        )
    header = [
        "out of fold",
        "AUROC, folds",
        "AUROC, all together",
        "AUPRC",
        "AUROC that the last row has more",
    ]
    patients, positives = len(np.unique(pool.patient_id)), int(pool.labels.sum())
    about = (
        f"{len(pool)} images at {pool.images.shape[1]} px, {positives} positive,"
        f" {patients} patients, {FOLDS} folds, seed {SEED}."
        " Intervals: 95 %, patients resampled; the last column is paired."
    )
    return f"{about}\n\n{markdown(header, rows)}"


def _cases(pool: Split, arm: Arm) -> Cases:
    clipped = np.clip(arm.probability, 1e-12, 1 - 1e-12)
    return Cases(
        arm.probability,
        np.log(clipped / (1 - clipped)),
        pool.labels,
        pool.study_id,
        pool.patient_id,
        pool.path,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="where humerus-prepare wrote")
    parser.add_argument("--workdir", required=True, help="gets a folder for each recipe")
    parser.add_argument("--weights", default="imagenet", help="of the backbone")
    parser.add_argument("--backbone", default="xception")
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["predecessor", "humerus"],
        help="the last is the one compared",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
