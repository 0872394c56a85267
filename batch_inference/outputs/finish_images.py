"""Draws and writes the pictures of scored images, or packs their maps, as a Beam transform."""

from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam

from batch_inference.concurrent_map import ConcurrentMap, PoolSize
from batch_inference.options import Options
from batch_inference.outputs import cam_store, grouping, journal
from batch_inference.outputs.records import Rejection
from batch_inference.outputs.sinks import Finish
from batch_inference.storage import filesystem
from trainer.artifact import METHOD_TITLES, Artifact
from trainer.drawing.legend import UNIT, Legend


class FinishImages(beam.PTransform):
    """Stores the map of each image, then passes it on as a `journal.Entry` or a `Rejection`."""

    def __init__(
        self, options: Options, described: Artifact, engine: str, attempt: str, pool: PoolSize
    ):
        """Take the options, the model's artifact, what rows name as its engine, the prefix of this
        attempt's files, and how many images are drawn at once.
        """
        super().__init__()
        self._options = options
        self._described = described
        self._engine = engine
        self._attempt = attempt
        self._pool = pool

    def expand(self, results: beam.PCollection) -> tuple[beam.PCollection, ...]:
        options, described = self._options, self._described
        output = filesystem.absolute(options.output)
        if options.cam_store == "parquet":
            encode = cam_store.Encode(described, options.cam_min_probability)
            results = (
                results
                | "Encode" >> self._map(lambda group: [encode(scored) for scored in group])
                | "Pack" >> beam.ParDo(cam_store.WritePacks(output, self._attempt))
            )
        finish = Finish(
            output,
            described,
            self._engine,
            options.cam,
            options.cam_format,
            options.cam_colours,
            options.cam_min_probability,
            options.dicom,
            options.method,
            _describe(described, options) if options.cam_legend else None,
        )
        return (
            results
            | "Draw and write" >> self._map(finish)
            | "Split" >> grouping.split_by_type(journal.Entry, Rejection)
        )

    def _map(self, function: Callable[[Sequence[Any]], list[Any]]) -> beam.PTransform:
        return beam.ParDo(ConcurrentMap(function, self._pool))


def _describe(described: Artifact, options: Options) -> Legend:
    """Return what the strip below the pictures says."""
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
