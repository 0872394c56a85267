"""Measure the accuracy that a threshold fitted on a small validation split loses, by rule.

    python benchmarks/threshold_rules.py [--patients=88] [--splits=200]

Each scenario draws patients with one or two studies of one to four images, scores correlated within
a study, AUROC 0.91 to 0.93; the model reports a scaled and shifted log odds. Every rule is fitted
on validation splits of that many patients, and its threshold is measured on a population of 40,000
patients: percentage points of image accuracy (and of kappa times 100) below the population's best
threshold, in the mean over the splits.
"""

import argparse

import numpy as np
import scipy.special

from trainer.evaluation import calibration, fit_scaling
from trainer.evaluation.cases import Cases

SCENARIOS = {
    "calibrated": {},
    "scaled 2.5": {"scale": 2.5},
    "shift -0.25": {"shift": -0.25},
    "shift +0.5": {"shift": 0.5},
    "shift -1": {"shift": -1.0},
    "wide": {"spread": 1.5, "separation": 2.4},
    "hardware": {"hardware": 0.6, "separation": 2.0, "shift": -0.6},
    "label noise": {"noise": 0.05, "separation": 2.4, "shift": 0.3},
    "1/4 positive": {"prevalence": 0.25},
}


def draw(
    patients: int,
    generator: np.random.Generator,
    scale: float = 2.0,
    shift: float = 0.0,
    separation: float = 2.087,
    spread: float = 1.0,
    hardware: float = 0.0,
    noise: float = 0.0,
    prevalence: float = 0.47,
) -> Cases:
    """Scored images of so many patients.

    Args:
      scale, shift: logit = scale (separation score + shift), where scale 1 and shift 0 are
        calibrated for equal classes.
      separation: of the class means, in standard deviations within a class.
      spread: standard deviation of the positives.
      hardware: half of the positives are 2.5 easier and the others this much harder.
      noise: share of studies with the wrong label.
    """
    patient = np.repeat(np.arange(patients), generator.choice([1, 2], p=[0.9, 0.1], size=patients))
    study = np.repeat(
        np.arange(len(patient)),
        generator.choice([1, 2, 3, 4], p=[0.25, 0.42, 0.25, 0.08], size=len(patient)),
    )
    label = (generator.random(len(patient)) < prevalence).astype(int)[study]
    z = np.sqrt(0.4) * generator.normal(size=len(patient))[study] + np.sqrt(0.6) * generator.normal(
        size=len(study)
    )
    score = np.where(label == 1, separation / 2 + spread * z, z - separation / 2)
    implant = (generator.random(len(patient)) < 0.5)[study]
    score += hardware * np.where(label == 0, 0, np.where(implant, 2.5 / max(hardware, 1e-9), -1))
    label = np.where((generator.random(len(patient)) < noise)[study], 1 - label, label)
    names = np.arange(len(study)).astype(str)
    logits = scale * (separation * score + shift)
    return Cases(
        np.full(len(study), 0.5),
        logits,
        label,
        study.astype(str),
        patient[study].astype(str),
        names,
    )


def cuts(cases: Cases, seed: int) -> dict[str, float]:
    """The logit that each rule cuts at."""
    slope, intercept = fit_scaling.fit_platt(cases.logit, cases.label)
    ordered = np.sort(cases.logit)
    middles = (ordered[1:] + ordered[:-1]) / 2
    correct = [np.sum((cases.logit >= cut) == cases.label) for cut in middles]
    fitted = {}
    for rule in ("kappa", "accuracy", "youden"):
        point = calibration.fit(cases, rule, seed=seed)
        line = point.scaling
        fitted[rule] = (scipy.special.logit(point.threshold) - line.intercept) * line.temperature
    return {
        **fitted,
        "0.5 after temperature": 0.0,
        "0.5 after Platt": -intercept / slope,
        "raw optimum of accuracy": middles[np.argmax(correct)],
    }


def quality(cases: Cases, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and kappa of calling positive from each `cut`, float [K] each."""
    positive, negative = (
        np.sort(cases.logit[cases.label == 1]),
        np.sort(cases.logit[cases.label == 0]),
    )
    tp, tn = len(positive) - np.searchsorted(positive, cut), np.searchsorted(negative, cut)
    called, prevalence = (tp + len(negative) - tn) / len(cases), len(positive) / len(cases)
    accuracy = (tp + tn) / len(cases)
    chance = called * prevalence + (1 - called) * (1 - prevalence)
    return accuracy, (accuracy - chance) / (1 - chance)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, default=88)
    parser.add_argument("--splits", type=int, default=200)
    arguments = parser.parse_args()
    lost: dict[str, list[np.ndarray]] = {}
    for index, settings in enumerate(SCENARIOS.values()):
        population = draw(40_000, np.random.default_rng(index), **settings)
        best = [values.max() for values in quality(population, np.linspace(-20, 20, 4001))]
        fitted = [
            cuts(draw(arguments.patients, np.random.default_rng([index, split]), **settings), split)
            for split in range(arguments.splits)
        ]
        for rule in fitted[0]:
            reached = quality(population, np.array([row[rule] for row in fitted]))
            lost.setdefault(rule, []).append(
                100 * np.array([b - np.mean(r) for b, r in zip(best, reached, strict=True)])
            )
    print("| rule | " + " | ".join(SCENARIOS) + " | mean | worst | kappa, mean |")
    print("|---|" + "---:|" * (len(SCENARIOS) + 3))
    for rule, rows in sorted(lost.items(), key=lambda item: np.mean([row[1] for row in item[1]])):
        accuracy, kappa = np.array(rows).T
        print(
            f"| {rule} | "
            + " | ".join(
                f"{v:.2f}" for v in [*accuracy, accuracy.mean(), accuracy.max(), kappa.mean()]
            )
            + " |"
        )


if __name__ == "__main__":
    main()
