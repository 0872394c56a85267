r"""Which weights a run should keep, and which variants of the recipe do better, over folds.

    humerus-prepare --source=fracatlas/labels.csv --layout=manifest --data_dir=data \
        --image_size=128 --validation_fraction=0 --test_fraction=0
    python -m benchmarks.recipe_choice --name=fracatlas --data_dir=data \
        --weights=xception_notop.weights.h5 --workdir=runs/recipe_choice

Every fold is the test split once; the next fold is the validation split, and the network trains on
the rest. The validation and test images are scored after each epoch, so that all rules of keeping
weights are compared on the same training. After a stop, the same
command continues. Several commands with different `--variants` may run side by side; the table in
benchmarks/README.md holds everything that the workdir has.
"""

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.tables import markdown, replace_table
from trainer.configs import humerus
from trainer.dataset.augmentation import Augmentation
from trainer.dataset.prepared_split import Split, load_split
from trainer.network.flips import PASSES
from trainer.network.trainable_layers import moving_statistics
from trainer.training import cross_validation
from trainer.training.build_run import build_run
from trainer.training.job import create_job
from trainer.training.loop import State
from trainer.training.run import Run

FOLDS = 5
FIRST_SCORED = 4  # epochs of fine-tuning before the first that is scored
BASE = "gamma to 1.3"
LESS_MOVED: Mapping[str, object] = {
    "augmentation.shift": 0.05,
    "augmentation.zoom": 0.1,
    "augmentation.rotation": 15.0,
}
VARIANTS: Mapping[str, Mapping[str, object]] = {
    BASE: {},
    "float32": {"precision": "float32"},
    "gamma to 2": {"augmentation.contrast": 1.0},
    "gamma to 3": {"augmentation.contrast": 2.0},
    "less moved": LESS_MOVED,
    "6 epochs": {"epochs": 6},
    "24 epochs": {"epochs": 24},
    "twice the rate": {"learning_rate": 1e-3},
    "four times the rate": {"learning_rate": 2e-3},
    "half the rate": {"learning_rate": 2.5e-4},
    "all layers": {"unfreeze_layers": "all"},
    "all layers, float32": {"unfreeze_layers": "all", "precision": "float32"},
    "all layers, gamma to 2": {"unfreeze_layers": "all", "augmentation.contrast": 1.0},
    "all layers, weight decay 0.1": {"unfreeze_layers": "all", "weight_decay": 0.1},
    "all layers, dropout 0.5": {"unfreeze_layers": "all", "dropout": 0.5},
    "all layers, less moved": {"unfreeze_layers": "all", **LESS_MOVED},
}
"""Differences from the recipe as it was: `BASE`, in bfloat16, the last 70 % of the layers."""


class TailAverage:
    """The plain mean of the weights over the steps that it is shown."""

    def __init__(self, run: Run):
        changing = [*run.model.trainable_variables, *moving_statistics(run.model)]
        self._weights = [weight.value for weight in changing]
        self._means = [np.zeros(weight.shape, np.float32) for weight in self._weights]
        self._steps = 0

    def update(self) -> None:
        """Take the current weights into the mean."""
        self._steps += 1
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean += (weight.numpy() - mean) / self._steps

    def put_in(self) -> None:
        """Make the mean the weights of the model."""
        for mean, weight in zip(self._means, self._weights, strict=True):
            weight.assign(mean)


def main() -> None:
    options = _options()
    pool = load_split(options.data_dir, "train+validation+test")
    pool = _add_noise(pool.select(np.argsort(pool.path)), options.noise)
    for seed in options.seeds:
        for fold in options.folds:
            for variant in options.variants:
                file = pathlib.Path(options.workdir, options.name, variant, f"{seed}-{fold}.npz")
                if not file.exists():
                    _save(file, train(pool, variant, seed, fold, options))
                    print(f"{file}: written", flush=True)
    replace_table(f"recipe_choice_{options.name}", table(pool, options))


def train(
    pool: Split, variant: str, seed: int, fold: int, options: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Train one network, and return what `table` needs of it: logits by epoch and weights."""
    learnt, validation, test = _split(pool, seed, fold, options)
    settings = humerus.get_config()
    settings.update_from_flattened_dict(
        {
            "precision": "mixed_bfloat16",
            "augmentation.contrast": 0.3,
            "unfreeze_layers": "70%",
        }
    )
    settings.update_from_flattened_dict(VARIANTS[variant])
    settings.update(backbone=options.backbone, weights=options.weights, seed=seed)
    job = create_job(settings, options.data_dir, options.workdir)
    tf.keras.backend.clear_session()
    tf.keras.mixed_precision.set_global_policy(settings.precision)
    run = build_run(job, tf.distribute.get_strategy(), learnt, validation)
    tail, state, scores, seconds = TailAverage(run), State(), {}, []
    first_scored = run.loop.epochs if options.only_last else settings.head_epochs + FIRST_SCORED
    while state.epoch < run.loop.epochs:
        in_tail = state.epoch >= settings.head_epochs + settings.epochs // 2
        started = time.process_time()
        run.loop.train_epoch(
            run.train,
            state,
            settings.global_batch_size,
            augmentation=Augmentation(**settings.augmentation),
            seed=seed,
            after_step=functools.partial(_after_step, tail if in_tail else None),
        )
        seconds.append(time.process_time() - started)
        state.finish_epoch({})
        if state.epoch >= first_scored:
            with run.average.use_averages():
                _score(run, test, f"epoch {state.epoch}", scores)
    _score(run, test, "raw", scores)
    with run.average.use_averages():
        flipped, test_flipped = (run.score(split, tuple(PASSES)) for split in (validation, test))
        scores |= {
            "test mirrored": test_flipped["horizontal"],
            "test four ways": test_flipped["both"],
            "validation mirrored": flipped["horizontal"],
            "validation four ways": flipped["both"],
        }
        for gamma in (0.5, 2.0):
            scores[f"test gamma {gamma}"] = run.predict(_expose(test, gamma))
    tail.put_in()
    _score(run, test, "tail", scores)
    return scores | {
        "validation labels": validation.labels,
        "test labels": test.labels,
        "test patients": test.patient_id,
        "seconds": np.array(seconds) / len(learnt),
    }


def _after_step(tail: TailAverage | None, state: State, measured: Mapping[str, float]) -> None:
    if tail:
        tail.update()


def _score(run: Run, test: Split, name: str, scores: dict[str, np.ndarray]) -> None:
    scores[f"validation {name}"] = run.predict(run.validation)
    scores[f"test {name}"] = run.predict(test)


def _add_noise(pool: Split, deviation: float) -> Split:
    """Return the images with normal noise of this standard deviation, in grey levels.

    Without it, simulated radiographs are easier to tell apart than real ones.
    """
    if not deviation:
        return pool
    random, images = np.random.default_rng(0), pool.images[np.arange(len(pool))]
    for image in images:
        image[:] = np.clip(image + random.normal(0, deviation, image.shape), 0, 255)
    return dataclasses.replace(pool, images=images)


def _expose(split: Split, gamma: float) -> Split:
    levels = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return dataclasses.replace(split, images=levels[split.images[np.arange(len(split))]])


def _split(
    pool: Split, seed: int, fold: int, options: argparse.Namespace
) -> tuple[Split, Split, Split]:
    """Return the images to train on, the validation images and the test images of a fold.

    Of the first two, `wrong_labels` of the patients have every label turned over.
    """
    fold_of = cross_validation.assign_folds(pool, FOLDS, seed)
    parts = [(fold_of != fold) & (fold_of != (fold + 1) % FOLDS), fold_of == (fold + 1) % FOLDS]
    random = np.random.default_rng([seed, fold])
    noisy = []
    for part in parts:
        rows = np.flatnonzero(part)
        if options.share < 1:
            patients = np.unique(pool.patient_id[rows])
            kept = random.permutation(patients)[: round(options.share * len(patients))]
            rows = rows[np.isin(pool.patient_id[rows], kept)]
        split = pool.select(rows)
        patients = np.unique(split.patient_id)
        wrong = patients[random.random(len(patients)) < options.wrong_labels]
        turned = np.isin(split.patient_id, wrong)
        noisy.append(
            dataclasses.replace(split, labels=np.where(turned, 1 - split.labels, split.labels))
        )
    return *noisy, pool.select(np.flatnonzero(fold_of == fold))


Rule = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Returns the test logits that a way of keeping weights ends with."""


def _list_epochs(scores: Mapping[str, np.ndarray]) -> list[str]:
    names = [name.removeprefix("test ") for name in scores if name.startswith("test epoch ")]
    return sorted(names, key=lambda name: int(name.split()[-1]))


def _last(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    return scores[f"test {_list_epochs(scores)[-1]}"]


def _best(figure: Callable[..., float], smoothing: int = 1) -> Rule:
    def choose(scores: Mapping[str, np.ndarray]) -> np.ndarray:
        epochs, labels = _list_epochs(scores), scores["validation labels"]
        figures = [figure(labels, scores[f"validation {epoch}"]) for epoch in epochs]
        smoothed = [np.mean(figures[max(0, i - smoothing + 1) : i + 1]) for i in range(len(epochs))]
        return scores[f"test {epochs[int(np.argmax(smoothed))]}"]

    return choose


def _minus_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    return -float(log_loss(labels, 1 / (1 + np.exp(-logits.astype(float))), labels=[0, 1]))


RULES: Mapping[str, Rule] = {
    "last epoch, average of the weights (EMA)": _last,
    "last epoch, not averaged": lambda scores: scores["test raw"],
    "mean of the weights over the second half": lambda scores: scores["test tail"],
    "epoch of the highest validation AUROC": _best(roc_auc_score),
    "the same, AUROC averaged over three epochs": _best(roc_auc_score, 3),
    "epoch of the lowest validation loss": _best(_minus_loss),
    "last epoch, mirror image scored too": lambda scores: scores["test mirrored"],
    "last epoch, four ways": lambda scores: scores["test four ways"],
    "last epoch, test images at gamma 0.5": lambda scores: scores["test gamma 0.5"],
    "last epoch, test images at gamma 2": lambda scores: scores["test gamma 2.0"],
}
LAST, *_, MIRRORED, FOUR_WAYS, GAMMA_HALF, GAMMA_TWO = RULES


def table(pool: Split, options: argparse.Namespace) -> str:
    """Format the rows of the recipe, by rule, and those of the other variants.

    With `only_last`, the recipe has the same rows as the others.
    """
    read = {variant: _read(options, variant) for variant in VARIANTS}
    before = read[options.base]
    last = (LAST, MIRRORED, FOUR_WAYS, GAMMA_HALF, GAMMA_TWO)
    rows = [
        _row(
            f"{options.base}, {name}",
            {key: RULES[name](scores) for key, scores in before.items()},
            before,
        )
        for name in (last if options.only_last else RULES)
    ]
    for variant, runs in read.items():
        if variant != options.base and runs:
            for name in last:
                rows.append(
                    _row(
                        f"{variant}, {name}",
                        {key: RULES[name](scores) for key, scores in runs.items()},
                        before,
                        RULES[name] if "gamma" in name else _last,
                    )
                )
    seconds = {name: _seconds(runs) for name, runs in read.items() if runs}
    learnt = options.share * len(pool) * (FOLDS - 2) / FOLDS
    about = (
        f"{options.backbone} at {pool.images.shape[1]} px, about {learnt:.0f} images to train on,"
        f" {100 * options.wrong_labels:.0f} % of the patients with wrong labels"
        f"{f', noise of {options.noise:g} grey levels' if options.noise else ''}. AUROC on test"
        " images of unseen patients, mean over the trainings; what the row has more than the first"
        " (for gamma: than the recipe at the same gamma), paired, with patients resampled, 95 %."
        " Processor time of an image and epoch of fine-tuning: "
        + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
        + "."
    )
    return (
        about + "\n\n" + markdown(["what", "trainings", "AUROC", "more than the first row"], rows)
    )


def _seconds(runs: Mapping[str, Mapping[str, np.ndarray]]) -> float:
    return float(np.median([scores["seconds"][-3:] for scores in runs.values()]))


def _read(options: argparse.Namespace, variant: str) -> dict[str, dict[str, np.ndarray]]:
    """Read the logits of all trainings of a variant, by seed and fold."""
    folder = pathlib.Path(options.workdir, options.name, variant)
    return {file.stem: dict(np.load(file)) for file in sorted(folder.glob("*.npz"))}


def _row(
    name: str,
    logits: Mapping[str, np.ndarray],
    before: Mapping[str, Mapping[str, np.ndarray]],
    base: Rule = _last,
) -> list[str]:
    both = [key for key in logits if key in before]
    auroc = [roc_auc_score(before[key]["test labels"], logits[key]) for key in both]
    draws = np.array([_differences(logits[key], base(before[key]), before[key]) for key in both])
    gain, (low, high) = draws[:, 0].mean(), np.percentile(draws[:, 1:].mean(0), [2.5, 97.5])
    shown = f"{gain:+.4f} ({low:+.4f} to {high:+.4f})" if draws.any() else ""
    return [name, str(len(both)), f"{np.mean(auroc):.4f}", shown]


def _differences(
    logits: np.ndarray, base: np.ndarray, scores: Mapping[str, np.ndarray], draws: int = 500
) -> np.ndarray:
    """Return the difference in AUROC, and that of `draws` bootstrap samples of patients."""
    labels, patients = scores["test labels"], scores["test patients"]
    unique, rows = np.unique(patients), {}
    for patient in unique:
        rows[patient] = np.flatnonzero(patients == patient)
    random, found = np.random.default_rng(0), [np.arange(len(labels))]
    while len(found) <= draws:
        sample = np.concatenate([rows[p] for p in random.choice(unique, len(unique))])
        if 0 < labels[sample].sum() < len(sample):
            found.append(sample)
    return np.array(
        [
            roc_auc_score(labels[rows], logits[rows]) - roc_auc_score(labels[rows], base[rows])
            for rows in found
        ]
    )


def _save(file: pathlib.Path, scores: Mapping[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".part")
    with written.open("wb") as stream:
        np.savez(stream, **scores)
    written.rename(file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the data, in the workdir and the table")
    parser.add_argument("--data_dir", required=True, help="where humerus-prepare wrote")
    parser.add_argument("--workdir", required=True, help="gets the logits of every training")
    parser.add_argument("--weights", default="imagenet", help="of the backbone")
    parser.add_argument("--backbone", default="xception")
    parser.add_argument("--variants", nargs="*", default=[BASE], choices=list(VARIANTS))
    parser.add_argument("--base", default=BASE, choices=list(VARIANTS), help="of the first row")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the patients to train on")
    parser.add_argument("--wrong_labels", type=float, default=0.0, help="share of patients")
    parser.add_argument("--only_last", action="store_true", help="score the last epoch only")
    parser.add_argument("--noise", type=float, default=0.0, help="in all images, grey levels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
