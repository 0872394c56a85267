"""Predictions of images -> a row per study."""

import apache_beam as beam

from batch_inference.records import Study, float32
from trainer.artifact import Artifact


class PerStudy(beam.CombineFn):
    """(probability, uri) of a study's images -> (mean, images, uri of the highest)."""

    def create_accumulator(self) -> tuple[float, int, tuple[float, str]]:
        return 0.0, 0, (-1.0, "")

    def add_input(self, accumulator, element):
        total, images, highest = accumulator
        return total + element[0], images + 1, max(highest, tuple(element))

    def merge_accumulators(self, accumulators):
        totals, images, highest = zip(*accumulators, strict=True)
        return sum(totals), sum(images), max(highest)

    def extract_output(self, accumulator) -> tuple[float, int, str]:
        total, images, highest = accumulator
        return total / images, images, highest[1]


def study_row(study: str, combined: tuple[float, int, str], described: Artifact) -> Study:
    """The row of a study. The mean is rounded to float32, which hides the order in which the images came."""
    mean, images, highest = combined
    return Study(study, described.label(mean), float32(mean), images, highest, described.model_id)
