"""The same content under several names: scored each time, marked, and counted once in its study."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam

from batch_inference.outputs import grouping
from batch_inference.outputs.records import Prediction

ONCE = "once"
Where = tuple[str, dict[str, str]]
"""The first URI of a content, and the first in each study."""


class FindRepeated(beam.PTransform):
    """Predictions -> (content, (first URI, {study: first URI there})) of each content that comes under several URIs.

    A content is the bytes of a file, and the frame where its frames are scored one by one.
    """

    def expand(self, predictions: beam.PCollection) -> beam.PCollection:
        return (
            predictions
            | "Content" >> beam.Map(lambda row: (_content(row), row.study, row.uri))
            | "Same content" >> grouping.GroupCompactly(lambda where: where[0])
            | "Several" >> beam.FlatMapTuple(lambda _, packs: find_repeated(grouping.unpack(packs)))
        )


def find_repeated(found: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, Where]]:
    """(content, study, URI) in any order -> content and its first URIs, of contents that come more than once."""
    firsts: dict[str, dict[str, str]] = {}
    repeated: set[str] = set()
    for content, study, uri in found:
        if content in firsts:
            repeated.add(content)
        of_study = firsts.setdefault(content, {})
        of_study[study] = min(uri, of_study.get(study, uri))
    yield from ((content, (min(firsts[content].values()), firsts[content])) for content in repeated)


def mark_duplicates(
    rows: Iterable[Prediction], copies: Mapping[str, Where]
) -> Iterator[Prediction | beam.pvalue.TaggedOutput]:
    """The rows, `duplicate_of` set where another of the same content comes first by URI.

    Under the tag `ONCE` come those of them that count in their study: of each content the first by URI there.
    """
    for row in rows:
        first, firsts = copies.get(_content(row), (row.uri, {row.study: row.uri}))
        marked = row if row.uri == first else dataclasses.replace(row, duplicate_of=first)
        yield marked
        if row.uri == firsts[row.study]:
            yield beam.pvalue.TaggedOutput(ONCE, marked)


def _content(row: Prediction) -> str:
    return row.sha256 if row.frame is None else f"{row.sha256}:{row.frame}"
