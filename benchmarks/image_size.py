r"""Compare how well small and large findings are recognised at several image sizes.

    for size in 160 320 512; do
      humerus-prepare --source=fracatlas/labels.csv --layout=manifest --data_dir=data$size \
          --image_size=$size --validation_fraction=0 --test_fraction=0
    done
    python -m benchmarks.image_size --masks=fracatlas/fracture_masks.coco.json \
        --weights=xception_notop.weights.h5 --data_dirs data160 data320 data512

At every size, a logistic regression on the pooled features of the frozen network is fitted by
folds of patients. Its AUROC is that of the positive images with small, middle and large findings,
each against all negative images. Writes its table into benchmarks/README.md.
"""

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.cross_validation import FOLDS, frozen_features, regression
from benchmarks.tables import markdown, replace_table
from trainer.dataset.prepared_split import Split, load_split
from trainer.evaluation import finding_masks
from trainer.training import cross_validation

SEEDS = range(3)
DRAWS = 500
GROUPS = ("smallest third", "middle third", "largest third")


def main() -> None:
    options = _options()
    rows: list[list[str]] = []
    for data_dir in options.data_dirs:
        pool = load_split(data_dir, "train+validation+test")
        pool = pool.select(np.argsort(pool.path))
        outlines = finding_masks.read(options.masks)
        sides = np.array(
            [_longest_side(mask) for mask in finding_masks.place_masks(outlines, pool)]
        )
        # A fracture without an outline has no size.
        pool, sides = (
            pool.select(keep := np.flatnonzero((sides > 0) | (pool.labels == 0))),
            sides[keep],
        )
        features = frozen_features(pool, options)
        assigned = [cross_validation.assign_folds(pool, FOLDS, seed) for seed in SEEDS]
        probability = np.mean([regression(features, pool, folds) for folds in assigned], 0)
        rows.append(_row(pool, sides, probability))
    about = (
        f"{options.backbone}, frozen; {len(pool)} images, {int(pool.labels.sum())} with a finding."
        " In each column: the median of the longer side of the findings in pixels of the network's"
        " input; AUROC against all images without a finding, out of fold, mean probability of"
        f" {len(SEEDS)} assignments to folds, and its 95 % interval, patients resampled."
    )
    replace_table("image_size", about + "\n\n" + markdown(["input", "all", *GROUPS], rows))


def _longest_side(mask: np.ndarray) -> int:
    """Return the longer side of the box round a mask, bool [size, size], in pixels; 0 if empty."""
    return max((int(np.ptp(places)) + 1 for places in np.nonzero(mask) if len(places)), default=0)


def _row(pool: Split, sides: np.ndarray, probability: np.ndarray) -> list[str]:
    negative = pool.labels == 0
    ranked = np.array_split(np.flatnonzero(~negative)[np.argsort(sides[~negative])], len(GROUPS))
    cells = []
    for positive in (np.flatnonzero(~negative), *ranked):
        rows = np.concatenate([np.flatnonzero(negative), positive])
        low, high = _interval(pool.select(rows), probability[rows])
        auroc = roc_auc_score(pool.labels[rows], probability[rows])
        cells.append(f"{np.median(sides[positive]):.0f} px: {auroc:.2f} ({low:.2f} to {high:.2f})")
    return [f"{pool.images.shape[1]} px", *cells]


def _interval(pool: Split, probability: np.ndarray) -> tuple[float, float]:
    random = np.random.default_rng(0)
    patients, patient = np.unique(pool.patient_id, return_inverse=True)
    rows_of = [np.flatnonzero(patient == number) for number in range(len(patients))]
    drawn = []
    while len(drawn) < DRAWS:
        rows = np.concatenate(
            [rows_of[i] for i in random.integers(0, len(patients), len(patients))]
        )
        if 0 < pool.labels[rows].sum() < len(rows):
            drawn.append(roc_auc_score(pool.labels[rows], probability[rows]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dirs", nargs="+", required=True, help="one for each image size")
    parser.add_argument("--masks", required=True, help="outlines of the findings, COCO")
    parser.add_argument("--weights", default="imagenet", help="of the backbone")
    parser.add_argument("--backbone", default="xception")
    return parser.parse_args()


if __name__ == "__main__":
    main()
