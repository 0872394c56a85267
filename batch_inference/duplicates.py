"""The same content under several names: scored each time, marked, and counted once in its study."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.records import Prediction

ONCE = "once"


class Mark(beam.PTransform):
    """Predictions -> each with `duplicate_of` set where another of the same bytes (and frame) comes first by URI.

    Beside the main output, `ONCE` holds of each content only the first by URI of each study.
    """

    def expand(self, predictions: beam.PCollection):
        return (
            predictions
            | "By content" >> beam.Map(lambda row: (f"{row.sha256}:{row.frame}", row))
            | "Same content" >> beam.GroupByKey()
            | "Mark" >> beam.FlatMapTuple(lambda _, rows: mark(rows)).with_outputs(ONCE, main="all")
        )


def mark(rows: Iterable[Prediction]) -> Iterator[Prediction | beam.pvalue.TaggedOutput]:
    """Rows of one content, in any order. Iterated twice rather than held: the same blank picture may come a million times."""
    firsts: dict[str, str] = {}
    for row in rows:
        firsts[row.study] = min(row.uri, firsts.get(row.study, row.uri))
    first = min(firsts.values())
    for row in rows:
        marked = row if row.uri == first else dataclasses.replace(row, duplicate_of=first)
        yield marked
        if row.uri == firsts[row.study]:
            yield beam.pvalue.TaggedOutput(ONCE, marked)
