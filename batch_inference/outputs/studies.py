"""Predictions of images -> a row per study."""

from collections.abc import Iterable, Iterator

from batch_inference.outputs.records import Study, float32
from trainer.artifact import Artifact


def average_studies(
    found: Iterable[tuple[str, float, str]], described: Artifact
) -> Iterator[Study]:
    """(study, probability, uri) of all images of some studies, in any order -> a row of each of these studies.

    The mean is rounded to float32, which hides the order in which the images came.
    """
    sums: dict[str, tuple[float, int, tuple[float, str]]] = {}
    for study, probability, uri in found:
        total, images, highest = sums.get(study, (0.0, 0, (-1.0, "")))
        sums[study] = total + probability, images + 1, max(highest, (probability, uri))
    for study, (total, images, (_, uri)) in sums.items():
        mean = total / images
        yield Study(study, described.label(mean), float32(mean), images, uri, described.model_id)
