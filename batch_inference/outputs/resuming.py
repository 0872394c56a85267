"""Compares earlier rows with the pictures, or packs of maps, that lie in the output.

A row holds only while its picture is there, and a picture that no row names is deleted.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from batch_inference.options import Options
from batch_inference.outputs import grouping, journal, picture_paths
from batch_inference.storage import filesystem
from trainer import overlay


class FindPictures(beam.PTransform):
    """Lists the pictures or packs of an output, by paths relative to it."""

    def __init__(self, options: Options):
        """Take the options, which name the output and the format of the pictures."""
        super().__init__()
        packed = options.cam_store == "parquet"
        self._ending = ".parquet" if packed else overlay.FORMATS[options.cam_format]
        self._output = filesystem.absolute(options.output)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Output" >> beam.Create([self._output])
            | "List" >> beam.FlatMap(find_pictures, self._ending)
        )


def find_pictures(output: str, ending: str) -> Iterator[str]:
    """Yield the paths, relative to the output, of files in `cams` whose names end in `ending`."""
    folder = filesystem.join(output, picture_paths.CAMS)
    return (
        filesystem.join(picture_paths.CAMS, path)
        for path in filesystem.files(folder)
        if path.endswith(ending)
    )


class KeepWithPicture(beam.PTransform):
    """(journal.Entry, paths of pictures) -> the entries whose picture is there or never was."""

    def expand(self, found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        return (
            found
            | grouping.GroupCompactly(
                lambda item: item if isinstance(item, str) else item.row.cam or item.row.uri
            )
            | beam.FlatMapTuple(lambda _, packs: keep_with_picture(grouping.unpack(packs)))
        )


def keep_with_picture(items: Iterable[str | journal.Entry]) -> Iterator[journal.Entry]:
    """Yield, of paths and entries in any order, the entries whose path is there or None."""
    entries: list[journal.Entry] = []
    there: set[str] = set()
    for item in items:
        if isinstance(item, str):
            there.add(item)
        else:
            entries.append(item)
    return (entry for entry in entries if entry.row.cam is None or entry.row.cam in there)


class DeleteUnnamedPictures(beam.PTransform):
    """(paths of pictures, Prediction) -> nothing; deletes the pictures that no row names."""

    def __init__(self, output: str):
        """Take the folder of the run."""
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
            | "Delete" >> beam.Map(lambda path: delete_picture(output, path))
        )


def delete_picture(output: str, path: str) -> None:
    """Delete a picture, and the copy of its radiograph if there is one."""
    filesystem.delete(filesystem.join(output, path))
    filesystem.delete(filesystem.join(output, picture_paths.original_path(path)))


def find_unnamed(items: Iterable[tuple[str, bool]]) -> set[str]:
    """Return the paths that no row names, of (path, whether a row names it) in any order."""
    left: set[str] = set()
    named: set[str] = set()
    for path, by_row in items:
        (named if by_row else left).add(path)
    return left - named
