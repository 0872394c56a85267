"""Simulate how often the 95 % intervals of each metric contain the truth, by number of patients.

Scores are binormal with an effect of the patient: one to three images of one study per patient, and
a second study for every third patient. The truth is the metric of 150,000 patients. The intervals
are those of `metrics.evaluate`, per image and per study.

    python -m benchmarks.coverage
"""

import argparse

import numpy as np
import scipy.special

from benchmarks import tables
from trainer.evaluation import bootstrap, metrics
from trainer.evaluation.cases import Cases, aggregate_by_study
from trainer.model_json.scaling import IDENTITY

SEPARATION = 2.0  # between the classes, in standard deviations of the score: AUROC 0.92
PATIENT_SHARE = 0.5  # share of the score's variance that images of one patient have in common
PATIENTS_OF_TRUTH = 150_000
THRESHOLD = 0.5


def draw(patients: int, positive: float, generator: np.random.Generator) -> Cases:
    """Return images of `patients` patients, overconfident by a factor of 1.3.

    Args:
      positive: share of the studies that are positive.
    """
    studies = 1 + (generator.random(patients) < 1 / 3)
    patient_of_study = np.repeat(np.arange(patients), studies)
    label_of_study = generator.random(len(patient_of_study)) < positive
    study = np.repeat(
        np.arange(len(patient_of_study)), generator.integers(1, 4, len(label_of_study))
    )
    patient, label = patient_of_study[study], label_of_study[study].astype(int)
    noise = generator.normal(size=patients)[patient] * np.sqrt(PATIENT_SHARE)
    noise = noise + generator.normal(size=len(study)) * np.sqrt(1 - PATIENT_SHARE)
    logit = SEPARATION * (SEPARATION * (label - 0.5) + noise) + scipy.special.logit(positive)
    names = np.arange(len(study)).astype(str)
    probability = scipy.special.expit(1.3 * logit)
    return Cases(probability, 1.3 * logit, label, study.astype(str), patient.astype(str), names)


def measure_coverage(
    patients: int, positive: float, rounds: int, resamples: int
) -> dict[tuple[str, str], float]:
    """Return the share of the intervals that hold the truth, by level and metric."""
    population = draw(PATIENTS_OF_TRUTH, positive, np.random.default_rng(0))
    truth = {
        level: bootstrap.compute_weighted_metrics(
            cases, bootstrap.count_each_once(cases), THRESHOLD
        )
        for level, cases in {
            "image": population,
            "study": aggregate_by_study(population, IDENTITY),
        }.items()
    }
    held: dict[tuple[str, str], list[bool]] = {}
    for index in range(rounds):
        cases = draw(patients, positive, np.random.default_rng([patients, index]))
        found = metrics.evaluate(cases, THRESHOLD, resamples=resamples, seed=index)
        for level, of_level in truth.items():
            for name, (value,) in of_level.items():
                low, high = found[level][name]["low"], found[level][name]["high"]
                if low is not None:
                    held.setdefault((level, name), []).append(low <= value <= high)
    return {key: float(np.mean(rows)) for key, rows in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, nargs="+", default=[30, 90, 135, 500])
    parser.add_argument("--positive", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    found = {
        (positive, patients): measure_coverage(
            patients, positive, options.rounds, options.resamples
        )
        for positive in options.positive
        for patients in options.patients
    }
    header = ["metric", *(f"{100 * share:.0f} %, {patients} patients" for share, patients in found)]
    rows = [
        [
            name,
            *(
                " / ".join(f"{covered[level, name]:.3f}" for level in ("image", "study"))
                for covered in found.values()
            ),
        ]
        for name in metrics.METRICS
    ]
    tables.replace_table("coverage", tables.markdown(header, rows))


if __name__ == "__main__":
    main()
