"""Pictures, or packs of maps, that earlier attempts left: a row is known while its own is there, and what no row names is deleted."""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.outputs import grouping, journal, picture_paths
from batch_inference.storage import filesystem


def find_pictures(output: str, ending: str) -> Iterator[str]:
    """Yields the paths, relative to the output, of what is there under names that end as those of this run."""
    folder = filesystem.join(output, picture_paths.CAMS)
    return (
        filesystem.join(picture_paths.CAMS, path)
        for path in filesystem.files(folder)
        if path.endswith(ending)
    )


class KeepWithPicture(beam.PTransform):
    """(journal entries, paths of pictures) -> the entries whose picture is there, and those that never had one."""

    def expand(self, found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        return (
            found
            | grouping.GroupCompactly(
                lambda item: item if isinstance(item, str) else item.row.cam or item.row.uri
            )
            | beam.FlatMapTuple(lambda _, packs: keep_with_picture(grouping.unpack(packs)))
        )


def keep_with_picture(items: Iterable[str | journal.Entry]) -> Iterator[journal.Entry]:
    """Paths and entries in any order -> those entries that `KeepWithPicture` tells of."""
    entries: list[journal.Entry] = []
    there: set[str] = set()
    for item in items:
        if isinstance(item, str):
            there.add(item)
        else:
            entries.append(item)
    return (entry for entry in entries if entry.row.cam is None or entry.row.cam in there)


class DeleteUnnamedPictures(beam.PTransform):
    """(paths of pictures, predictions) -> nothing; deletes the pictures that none of these rows names."""

    def __init__(self, output: str):
        super().__init__()
        self._output = output

    def expand(self, found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        left, predictions = found
        output = self._output
        named = predictions | "Named" >> beam.FlatMap(
            lambda row: [(row.cam, True)] if row.cam else []
        )
        return (
            (left | "Left" >> beam.Map(lambda path: (path, False)), named)
            | grouping.GroupCompactly(lambda item: item[0])
            | beam.FlatMapTuple(lambda _, packs: find_unnamed(grouping.unpack(packs)))
            | "Delete" >> beam.Map(lambda path: filesystem.delete(filesystem.join(output, path)))
        )


def find_unnamed(items: Iterable[tuple[str, bool]]) -> set[str]:
    """(path, whether a row names it) in any order -> the paths that no row names."""
    left: set[str] = set()
    named: set[str] = set()
    for path, by_row in items:
        (named if by_row else left).add(path)
    return left - named
