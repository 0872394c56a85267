"""Averages the predictions of images into one row per study."""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.outputs import grouping
from batch_inference.outputs.records import Study, float32
from trainer.artifact import Artifact


class AverageStudies(beam.PTransform):
    """Prediction -> Study: one row for each study, of the predictions that count in it."""

    def __init__(self, described: Artifact):
        """Takes the model's artifact, which decides on the label."""
        super().__init__()
        self._described = described

    def expand(self, predictions: beam.PCollection) -> beam.PCollection:
        described = self._described
        return (
            predictions
            | "Shorten" >> beam.Map(lambda row: (row.study, row.probability, row.uri))
            | "Group by study" >> grouping.GroupCompactly(lambda image: image[0])
            | "Average"
            >> beam.FlatMapTuple(
                lambda _, packs: average_studies(grouping.unpack(packs), described)
            )
        )


def average_studies(
    found: Iterable[tuple[str, float, str]], described: Artifact
) -> Iterator[Study]:
    """Yield a row for each study, of (study, probability, uri) of all its images in any order.

    The mean is rounded to float32, which hides rounding errors that depend on the order.
    """
    sums: dict[str, tuple[float, int, tuple[float, str]]] = {}
    for study, probability, uri in found:
        total, images, highest = sums.get(study, (0.0, 0, (-1.0, "")))
        sums[study] = total + probability, images + 1, max(highest, (probability, uri))
    for study, (total, images, (_, uri)) in sums.items():
        mean = total / images
        yield Study(study, described.label(mean), float32(mean), images, uri, described.model_id)
