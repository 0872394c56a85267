"""Simulate how often an engine is accepted, by its rounding noise and the number of images.

The reference's logits are binormal. An engine adds independent noise, which is known to cost next
to no AUROC, and `agreement.compare` judges it as `humerus-verify` does. Where it is refused, there
were too few labelled images to tell.

    python -m benchmarks.engine_power
"""

import argparse

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

from benchmarks import tables
from trainer.evaluation import agreement
from trainer.evaluation.cases import Cases

AUROC = 0.80  # of an Xception trained on FracAtlas
POSITIVE = 0.23  # share of the images, as there
SPREAD = 2.4  # standard deviation of its logits
NOISE = (0.04, 0.10, 0.15, 0.25)  # in standard deviations of the logits
IMAGES = (145, 300, 600)


def draw(images: int, generator: np.random.Generator) -> Cases:
    """Return images of as many patients."""
    label = (generator.random(images) < POSITIVE).astype(int)
    separation = np.sqrt(2) * scipy.stats.norm.ppf(AUROC)
    logit = generator.normal(size=images) + separation * (label - POSITIVE)
    logit = SPREAD * logit / logit.std() + scipy.special.logit(POSITIVE)
    names = np.arange(images).astype(str)
    return Cases(scipy.special.expit(logit), logit, label, names, names, names)


def judge(cases: Cases, noise: float, generator: np.random.Generator) -> tuple[bool, float]:
    """Return whether an engine of this noise is accepted, and the AUROC that it loses."""
    logit = cases.logit + noise * SPREAD * generator.normal(size=len(cases))
    cam = np.tile(np.arange(4.0), (len(cases), 1))
    before, after = (
        {"probability": scipy.special.expit(values), "logit": values, "cam": cam}
        for values in (cases.logit, logit)
    )
    found = agreement.compare(
        before, after, lambda probability: str(probability >= 0.5), 0.5, cases
    )
    lost = sklearn.metrics.roc_auc_score(cases.label, cases.logit) - sklearn.metrics.roc_auc_score(
        cases.label, logit
    )
    return found["within_tolerance"], lost


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    rows = []
    for noise in NOISE:
        cells, lost = [], []
        for images in IMAGES:
            generator = np.random.default_rng(0)
            verdicts = [
                judge(draw(images, generator), noise, generator) for _ in range(options.rounds)
            ]
            cells.append(f"{np.mean([accepted for accepted, _ in verdicts]):.0%}")
            lost.append(np.mean([less for _, less in verdicts]))
        rows.append([f"{noise:.2f}", f"{np.mean(lost):.4f}", *cells])
    header = ["noise", "AUROC lost, mean", *(f"{images:,} images" for images in IMAGES)]
    tables.replace_table("engine_power", tables.markdown(header, rows))


if __name__ == "__main__":
    main()
