"""Joins each input with the rows that earlier attempts made of it."""

import dataclasses
from collections.abc import Container, Iterable, Iterator

import apache_beam as beam

from batch_inference.composite import composite
from batch_inference.outputs import grouping, journal
from batch_inference.outputs.records import Prediction, Source, printable
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
def FindCrowdedFolders(found: beam.PCollection, study_key: str) -> beam.PCollection:
    """(place in the list, Source) of each mention -> (folder, number of its images), of the folders
    that hold too many for one study.

    Args:
      study_key: `Options.study_key`; folders are examined only where nobody said what a study is.
    """
    examined = study_key == "auto"
    return (
        found
        | beam.Filter(lambda mention: examined and mention[1].is_grouped)
        | beam.MapTuple(lambda _, source: printable(source.name))
        | grouping.GroupCompactly(study_folders.find_folder)
        | beam.FlatMapTuple(
            lambda _, packs: study_folders.find_crowded(grouping.unpack(packs)).items()
        )
    )


@composite
def MakeTasks(
    found: tuple[beam.PCollection, beam.PCollection], crowded: beam.PCollection
) -> beam.PCollection:
    """((place in the list, Source) of each mention, journal.Entry) -> Task of each URI.

    Of several mentions of a URI, the first counts. The tasks are spread over the workers.

    Args:
      crowded: what `FindCrowdedFolders` returned.
    """
    return (
        found
        | grouping.GroupCompactly(
            lambda item: item.row.uri if isinstance(item, journal.Entry) else printable(item[1].uri)
        )
        | beam.Values()
        | beam.FlatMap(
            lambda packs, crowded: join_tasks(grouping.unpack(packs), crowded),
            beam.pvalue.AsDict(crowded),
        )
    )


def join_tasks(
    items: Iterable[tuple[int, Source] | journal.Entry], crowded: Container[str]
) -> Iterator[Task]:
    """Yield the tasks in order of URI, of mentions and entries in any order.

    The folders of `crowded` don't stand for studies.
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
        if study_folders.find_folder(printable(source.name)) in crowded:
            source = dataclasses.replace(source, is_grouped=False)
        yield Task(source, tuple(rows.get(journal.digest(source), ())))
