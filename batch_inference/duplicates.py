"""The same content under several names: scored each time, and marked."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.records import Prediction


class Mark(beam.PTransform):
    """Predictions, each with `duplicate_of` set where another of the same bytes (and frame) comes first by URI."""

    def expand(self, predictions: beam.PCollection) -> beam.PCollection:
        return (
            predictions
            | "By content" >> beam.Map(lambda row: (f"{row.sha256}:{row.frame}", row))
            | "Same content" >> beam.GroupByKey()
            | "Mark" >> beam.FlatMapTuple(lambda _, rows: mark(rows))
        )


def mark(rows: Iterable[Prediction]) -> Iterator[Prediction]:
    """Rows of one content, in any order. Iterated twice rather than held: the same blank picture may come a million times."""
    first = min(row.uri for row in rows)
    for row in rows:
        yield row if row.uri == first else dataclasses.replace(row, duplicate_of=first)
