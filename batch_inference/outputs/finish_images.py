"""Draw and write the pictures of scored images, or pack their maps, as a Beam transform."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.concurrent_map import ConcurrentMap, PoolSize
from batch_inference.options import Options
from batch_inference.outputs import cam_store, earlier_files, grouping, journal
from batch_inference.outputs.records import Rejection
from batch_inference.outputs.sinks import Finish
from batch_inference.storage import filesystem
from trainer.artifact import METHOD_TITLES, Artifact
from trainer.drawing.legend import UNIT, Legend


@composite
def FinishImages(
    results: beam.PCollection,
    options: Options,
    described: Artifact,
    engine: str,
    attempt: str,
    pool: PoolSize,
) -> tuple[beam.PCollection, ...]:
    """Store the map of each image, then pass it on as a `journal.Entry` or a `Rejection`.

    Args:
      described: the model's artifact.
      engine: what rows name as its engine.
      attempt: prefix of this attempt's files.
      pool: how many images are drawn at once.
    """

    def concurrently(function: Callable[[Sequence[Any]], list[Any]]) -> beam.PTransform:
        return beam.ParDo(ConcurrentMap(function, pool))

    # Workers may have another current folder.
    options = dataclasses.replace(options, output=filesystem.absolute(options.output))
    if options.cam_store == "parquet":
        encode = cam_store.Encode(described, options.cam_min_probability)
        results = (
            results
            | "Encode" >> concurrently(lambda group: [encode(scored) for scored in group])
            | "Pack" >> beam.ParDo(cam_store.WritePacks(options.output, attempt))
        )
    finish = Finish(
        options,
        described,
        engine,
        _describe(described, options),
        earlier_files.has_former_pictures(options),
    )
    return (
        results
        | "Draw and write" >> concurrently(finish)
        | "Split" >> grouping.split_by_type(journal.Entry, Rejection)
    )


def _describe(described: Artifact, options: Options) -> Legend:
    """Return how maps are drawn, and what the strip below them says."""
    cam = described.cam
    return Legend(
        scale=cam["scale"],
        unit=UNIT,
        method=METHOD_TITLES[options.method],
        model=described.model_id,
        rows=cam["height"],
        columns=cam["width"],
        image_size=described.image_size,
        style=options.cam,
        colours=options.cam_colours,
    )
