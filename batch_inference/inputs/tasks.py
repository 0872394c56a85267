"""Join each input with the rows that earlier attempts made of it."""

import dataclasses
from collections.abc import Container, Iterable, Iterator

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.outputs import grouping, journal
from batch_inference.outputs.records import Prediction, Source, escape_reversibly
from trainer.files import study_folders


@dataclasses.dataclass(frozen=True)
class Task:
    """A source to score.

    Attributes:
      source: the input.
      known: its rows from earlier attempts, which hold if the file's content is still the same.
    """

    source: Source
    known: tuple[Prediction, ...] = ()


@composite
def FindOversizedFolders(found: beam.PCollection, study_key: str) -> beam.PCollection:
    """Find the folders that hold too many images for one study, with their numbers of images.

    Args:
      found: (place in the list, Source) of each mention.
      study_key: `Options.study_key`; folders are examined only where nobody said what a study is.
    """
    examined = study_key == "auto"
    return (
        found
        | beam.Filter(lambda mention: examined and mention[1].is_grouped)
        | beam.MapTuple(lambda _, source: escape_reversibly(source.name))
        | grouping.GroupCompactly(study_folders.find_folder)
        | beam.FlatMapTuple(
            lambda _, packs: study_folders.find_oversized(grouping.unpack(packs)).items()
        )
    )


@composite
def MakeTasks(
    found: tuple[beam.PCollection, beam.PCollection], oversized: beam.PCollection
) -> beam.PCollection:
    """Make the task of each URI, and spread the tasks over the workers.

    Of several mentions of a URI, the first counts.

    Args:
      found: (place in the list, Source) of each mention, and the entries of earlier attempts.
      oversized: what `FindOversizedFolders` returned.
    """
    return (
        found
        | grouping.GroupCompactly(
            lambda item: (
                item.row.uri if isinstance(item, journal.Entry) else escape_reversibly(item[1].uri)
            )
        )
        | beam.Values()
        | beam.FlatMap(
            lambda packs, oversized: join_tasks(grouping.unpack(packs), oversized),
            beam.pvalue.AsDict(oversized),
        )
    )


def join_tasks(
    items: Iterable[tuple[int, Source] | journal.Entry], oversized: Container[str]
) -> Iterator[Task]:
    """Yield the tasks in order of URI, of mentions and entries in any order.

    The folders of `oversized` don't stand for studies.
    """
    mentions: dict[str, tuple[int, Source]] = {}
    rows: dict[str, list[Prediction]] = {}
    for item in items:
        if isinstance(item, journal.Entry):
            rows.setdefault(item.source, []).append(item.row)
        else:
            _, source = item
            mentions[source.uri] = min(item, mentions.get(source.uri, item))
    for _, (_, source) in sorted(mentions.items()):
        if study_folders.find_folder(escape_reversibly(source.name)) in oversized:
            source = dataclasses.replace(source, is_grouped=False)
        yield Task(source, tuple(rows.get(journal.digest(source), ())))
