"""Compares earlier rows with the pictures, packs of maps and DICOM results in the output.

A row holds only while its files are there, and a file that no row names is deleted. So is a picture
that humerus-overlay drew of a packed map which no row names any more.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
from absl import logging

from batch_inference.composite import composite
from batch_inference.options import Options, Selection
from batch_inference.outputs import cam_store, grouping, journal, picture_paths
from batch_inference.outputs.records import Prediction, readable
from batch_inference.storage import filesystem
from trainer.drawing import overlay
from trainer.errors import DataError


@composite
def FindPictures(pipeline: beam.Pipeline, options: Options) -> beam.PCollection:
    """List the pictures or packs, and the DICOM results, by paths relative to the output."""
    packed, output = options.cam_store == "parquet", filesystem.absolute(options.output)
    ending = ".parquet" if packed else overlay.FORMATS[options.cam_format]
    return pipeline | beam.Impulse() | beam.FlatMap(lambda _: find_pictures(output, ending))


def find_pictures(output: str, ending: str) -> Iterator[str]:
    """Yield the paths, relative to the output, of files in `cams` whose names end in `ending`, and
    of DICOM results.

    A name that is not UTF-8 is somebody else's: a run never writes one.
    """
    for folder, end in ((picture_paths.CAMS, ending), (picture_paths.DICOM, ".dcm")):
        for path in filesystem.files(filesystem.join(output, folder)):
            if path.endswith(end) and readable(path) == path:
                yield filesystem.join(folder, path)


def list_files(row: Prediction) -> list[str]:
    """Return the paths of the files that a row names."""
    return [*([row.cam] if row.cam else []), *row.dicom]


@composite
def KeepWithPicture(found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    """(journal.Entry, paths of files) -> the entries whose files are all there."""
    return (
        found
        | grouping.GroupCompactly(
            lambda item: picture_paths.find_stem(
                item if isinstance(item, str) else (list_files(item.row) or [item.row.uri])[0]
            )
        )
        | beam.FlatMapTuple(lambda _, packs: keep_with_picture(grouping.unpack(packs)))
    )


def keep_with_picture(items: Iterable[str | journal.Entry]) -> Iterator[journal.Entry]:
    """Yield the entries whose paths are all there; paths and entries come in any order."""
    entries: list[journal.Entry] = []
    there: set[str] = set()
    for item in items:
        if isinstance(item, str):
            there.add(item)
        else:
            entries.append(item)
    return (entry for entry in entries if there.issuperset(list_files(entry.row)))


@composite
def DeleteUnnamedPictures(
    found: tuple[beam.PCollection, beam.PCollection], output: str
) -> beam.PCollection:
    """(paths of files, Prediction) -> nothing; deletes the files in `output` that no row names."""
    left, predictions = found
    named = predictions | "Named" >> beam.FlatMap(
        lambda row: [(path, True) for path in list_files(row)]
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
    if path.startswith(f"{picture_paths.CAMS}/"):
        filesystem.delete(filesystem.join(output, picture_paths.original_path(path)))


def find_unnamed(items: Iterable[tuple[str, bool]]) -> set[str]:
    """Return the paths that no row names, of (path, whether a row names it) in any order."""
    left: set[str] = set()
    named: set[str] = set()
    for path, by_row in items:
        (named if by_row else left).add(path)
    return left - named


def has_former_pictures(options: Options) -> bool:
    """Return whether a resumed run's output may show a former radiograph or map of a changed file.

    These are copies of radiographs, and pictures that humerus-overlay drew of packed maps.
    """
    if not options.resume:
        return False
    output = filesystem.absolute(options.output)
    if options.cam_store == "parquet":
        return any(find_drawn_pictures(output))
    return any(filesystem.files(filesystem.join(output, picture_paths.ORIGINALS)))


def find_drawn_pictures(output: str) -> Iterator[str]:
    """Yield the paths, relative to the output, of the pictures of a run that packs its maps."""
    for path in filesystem.files(filesystem.join(output, picture_paths.CAMS)):
        if path.endswith(tuple(overlay.FORMATS.values())) and readable(path) == path:
            yield filesystem.join(picture_paths.CAMS, path)


def delete_drawn_pictures(output: str) -> None:
    """Delete the pictures that humerus-overlay drew of maps which no row names any more.

    Raises:
      StorageError: a file cannot be read or deleted.
    """
    drawn = list(find_drawn_pictures(output))
    if not drawn:
        return
    try:
        current = set(cam_store.list_named_maps(output, Selection()).values())
    except DataError as error:
        logging.warning("pictures of changed or removed files may remain in cams/: %s", error)
        return
    for path in drawn:
        if path.rpartition(".")[0] not in current:
            filesystem.delete(filesystem.join(output, path))
