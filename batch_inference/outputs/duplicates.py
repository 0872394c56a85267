"""Mark files of the same content: each has a row, and its study counts the content once."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.outputs import grouping, journal
from batch_inference.outputs.records import Prediction

ONCE = "once"
FirstUris = tuple[str, dict[str, str]]
"""The first URI of a content, and the first by study."""


@composite
def ReadAndMarkPredictions(parts: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
    """Read the journal's parts, and return all predictions and those that count in a study.

    Of several predictions with the same content, all but the first are marked as duplicates, and
    the first in each study counts there. Parts are read as often as their rows are needed: rows
    that several steps read, the embedded runner would keep in memory.
    """
    repeated = (
        parts
        | "Read to compare" >> beam.FlatMap(journal.read_predictions)
        | "Find repeated content" >> FindRepeated()
    )
    rows = parts | "Read and mark" >> beam.FlatMap(
        lambda part, repeated: mark_duplicates(journal.read_predictions(part), repeated),
        beam.pvalue.AsDict(repeated),
    ).with_outputs(ONCE, main="all")
    return rows["all"], rows[ONCE]


@composite
def FindRepeated(predictions: beam.PCollection) -> beam.PCollection:
    """Find the contents that several predictions share, as pairs (content, FirstUris).

    A content is the SHA-256 of a file, and the frame where frames are scored one by one.
    """
    return (
        predictions
        | "Content" >> beam.Map(lambda row: (_content(row), row.study, row.uri))
        | "Same content" >> grouping.GroupCompactly(lambda row: row[0])
        | "Several" >> beam.FlatMapTuple(lambda _, packs: find_repeated(grouping.unpack(packs)))
    )


def find_repeated(found: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, FirstUris]]:
    """Yield the first URIs of each repeated content; triples (content, study, URI) in any order."""
    firsts: dict[str, dict[str, str]] = {}
    repeated: set[str] = set()
    for content, study, uri in found:
        if content in firsts:
            repeated.add(content)
        of_study = firsts.setdefault(content, {})
        of_study[study] = min(uri, of_study.get(study, uri))
    yield from ((content, (min(firsts[content].values()), firsts[content])) for content in repeated)


def mark_duplicates(
    rows: Iterable[Prediction], copies: Mapping[str, FirstUris]
) -> Iterator[Prediction | beam.pvalue.TaggedOutput]:
    """Yield the rows, with `duplicate_of` set where another of the same content has an earlier URI.

    The tag `ONCE` has the rows that count in their study: of each content, the first by URI.
    """
    for row in rows:
        first, firsts = copies.get(_content(row), (row.uri, {row.study: row.uri}))
        marked = row if row.uri == first else dataclasses.replace(row, duplicate_of=first)
        yield marked
        if row.uri == firsts[row.study]:
            yield beam.pvalue.TaggedOutput(ONCE, marked)


def _content(row: Prediction) -> str:
    return row.sha256 if row.frame is None else f"{row.sha256}:{row.frame}"
