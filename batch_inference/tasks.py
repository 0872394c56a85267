"""What there is to do: every source once, joined with the row that an earlier attempt made of it."""

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference import journal, shelves
from batch_inference.records import Prediction, Source, printable


@dataclasses.dataclass(frozen=True)
class Task:
    """A source to score, and its row from an earlier attempt: still good if the file's content is the same."""

    source: Source
    known: Prediction | None = None


class EachOnce(beam.PTransform):
    """(sources, journal entries) -> tasks, spread over the workers; the second mention of a URI is dropped."""

    def expand(self, found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        return (
            found
            | shelves.Shelve(lambda item: printable(item.uri) if isinstance(item, Source) else item.row.uri)
            | beam.FlatMapTuple(lambda _, packs: join(shelves.unpacked(packs)))
        )


def join(items: Iterable[Source | journal.Entry]) -> Iterator[Task]:
    """Sources and entries in any order -> the tasks, in order of URI."""
    sources: dict[str, Source] = {}
    rows: dict[str, Prediction] = {}
    for item in items:
        if isinstance(item, journal.Entry):
            # How many frames a file has, its rows don't say: files of several are scored again.
            if item.row.frame is None:
                rows[item.source] = item.row
        else:
            sources[item.uri] = min(item, sources.get(item.uri, item))
    for _, source in sorted(sources.items()):
        yield Task(source, rows.get(journal.digest(source)))
