"""Average the predictions of images into one row per study."""

import math
from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.outputs import grouping
from batch_inference.outputs.records import Study, float32
from trainer.artifact import Artifact


@composite
def AverageStudies(predictions: beam.PCollection, described: Artifact) -> beam.PCollection:
    """Combine the predictions that count in a study to one `Study`.

    Args:
      described: the model's artifact, which decides on the label.
    """
    return (
        predictions
        | "Shorten" >> beam.Map(lambda row: (row.study, row.logit, row.uri))
        | "Group by study" >> grouping.GroupCompactly(lambda image: image[0])
        | "Average"
        >> beam.FlatMapTuple(lambda _, packs: average_studies(grouping.unpack(packs), described))
    )


def average_studies(
    found: Iterable[tuple[str, float, str]], described: Artifact
) -> Iterator[Study]:
    """Yield a row for each study, of (study, logit, uri) of all its images in any order.

    The probability is rounded to float32, which hides rounding errors that depend on the order.
    """
    scaling = described.study_scaling
    sums: dict[str, tuple[float, int, tuple[float, str]]] = {}
    for study, logit, uri in found:
        total, images, highest = sums.get(study, (0.0, 0, (-math.inf, "")))
        sums[study] = total + logit, images + 1, max(highest, (logit, uri))
    for study, (total, images, (_, uri)) in sums.items():
        probability = float(scaling.compute_probability(total / images))
        label = described.label(probability)
        yield Study(study, label, float32(probability), images, uri, described.model_id)
