"""Joins each input with the rows that earlier attempts made of it."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.outputs import grouping, journal
from batch_inference.outputs.records import Prediction, Source, printable


@dataclasses.dataclass(frozen=True)
class Task:
    """A source to score.

    Attributes:
      source: the input.
      known: its rows from earlier attempts, which hold if the file's content is still the same.
    """

    source: Source
    known: tuple[Prediction, ...] = ()


class MakeTasks(beam.PTransform):
    """((place in the list, Source) of each mention, journal.Entry) -> Task of each URI.

    Of several mentions of a URI, the first counts. The tasks are spread over the workers.
    """

    def expand(self, found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        return (
            found
            | grouping.GroupCompactly(
                lambda item: (
                    item.row.uri if isinstance(item, journal.Entry) else printable(item[1].uri)
                )
            )
            | beam.FlatMapTuple(lambda _, packs: join_tasks(grouping.unpack(packs)))
        )


def join_tasks(items: Iterable[tuple[int, Source] | journal.Entry]) -> Iterator[Task]:
    """Yield the tasks in order of URI, of mentions and entries in any order."""
    mentions: dict[str, tuple[int, Source]] = {}
    rows: dict[str, list[Prediction]] = {}
    for item in items:
        if isinstance(item, journal.Entry):
            rows.setdefault(item.source, []).append(item.row)
        else:
            _, source = item
            mentions[source.uri] = min(item, mentions.get(source.uri, item))
    for _, (_, source) in sorted(mentions.items()):
        yield Task(source, tuple(rows.get(journal.digest(source), ())))
