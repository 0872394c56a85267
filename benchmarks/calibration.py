"""Simulate what an intercept, and a calibration of studies, gain on new patients.

Logits are those of a network that learnt with class weights, which add the log of the ratio of the
classes to each logit, and that is overconfident. Studies have one to four images, which share half
of the variance. Each method is fitted on a validation split and measured on 20,000 new studies.

    python -m benchmarks.calibration
"""

import argparse

import numpy as np

from benchmarks import tables
from trainer.evaluation import bootstrap, calibration, fit_scaling
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.model_json.scaling import IDENTITY, Scaling

SEPARATION = 1.6  # AUROC 0.87
OVERCONFIDENCE = 1.2
STUDIES = (60, 130, 500)  # of a validation split
SHARES = (0.15, 0.5)  # of positive studies


def draw(studies: int, positive: float, generator: np.random.Generator) -> Cases:
    """Return scored images of `studies` studies, each of its own patient."""
    label_of_study = (generator.random(studies) < positive).astype(int)
    study = np.repeat(np.arange(studies), generator.integers(1, 5, studies))
    label = label_of_study[study]
    noise = generator.normal(size=studies)[study] + generator.normal(size=len(study))
    odds = SEPARATION * (noise / np.sqrt(2) + SEPARATION * (label - 0.5))
    # With weights that balance the classes, the network learns the odds of balanced classes.
    names = study.astype(str)
    half = np.full(len(study), 0.5)
    return Cases(half, OVERCONFIDENCE * odds, label, names, names, np.arange(len(study)))


def average_probabilities(cases: Cases, line: Scaling) -> Cases:
    """Return studies whose probability is the mean of their images' probabilities."""
    studies = aggregate_by_study(cases, line)
    study = np.searchsorted(np.sort(studies.study_id), cases.study_id)
    mean = np.bincount(study, line.compute_probability(cases.logit)) / np.bincount(study)
    in_order = studies.take(np.argsort(studies.study_id))
    return Cases(
        mean,
        in_order.logit,
        in_order.label,
        in_order.study_id,
        in_order.patient_id,
        in_order.path,
    )


def measure(cases: Cases) -> list[float]:
    """Return the mean probability, the calibration error and the Brier score."""
    found = bootstrap.compute_weighted_metrics(cases, bootstrap.count_each_once(cases), 0.5)
    return [cases.probability.mean(), found["ece"][0], found["brier"][0]]


def compare(studies: int, positive: float, seed: int) -> dict[tuple[str, str], list[float]]:
    """Return the figures of each method on new studies, by level and method."""
    generator = np.random.default_rng([studies, int(100 * positive), seed])
    validation, fresh = (draw(count, positive, generator) for count in (studies, 20_000))
    point = calibration.fit(validation, seed=seed)
    temperature = Scaling(fit_scaling.fit_temperature(validation.logit, validation.label))
    lines = {"none": IDENTITY, "temperature": temperature, "chosen": point.scaling}
    rows = {
        ("image", name): measure(calibration.apply(line, fresh)) for name, line in lines.items()
    }
    return rows | {
        ("study", "mean probability"): measure(average_probabilities(fresh, point.scaling)),
        ("study", "chosen"): measure(aggregate_by_study(fresh, point.effective_study_scaling)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=50)
    options = parser.parse_args()
    rows = []
    for positive in SHARES:
        for studies in STUDIES:
            found = [compare(studies, positive, seed) for seed in range(options.splits)]
            for key in found[0]:
                figures = np.mean([of_split[key] for of_split in found], axis=0)
                level, method = key
                name = f"{100 * positive:.0f} %, {studies} studies, per {level}: {method}"
                rows.append([name, *(f"{figure:.3f}" for figure in figures)])
    header = ["positives, validation, method", "mean probability", "ECE", "Brier score"]
    tables.replace_table("calibration", tables.markdown(header, rows))


if __name__ == "__main__":
    main()
