"""Compare the pictures, packs of maps and DICOM results of earlier attempts with the rows.

A row holds only while its files are there, and a file that no row names is deleted. So is a picture
that humerus-overlay drew of a packed map which no row names any more.
"""

import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam
from absl import logging

from batch_inference.composite import composite
from batch_inference.options import Options, Selection
from batch_inference.outputs import cam_store, grouping, journal, picture_paths
from batch_inference.outputs.records import Prediction, replace_surrogates
from batch_inference.storage import filesystem
from trainer.drawing import overlay
from trainer.errors import DataError

_DRAWN = tuple(overlay.FORMATS.values())
"""Endings of pictures; a run that packs its maps writes none, but humerus-overlay does."""


def _find(output: str, folder: str, endings: str | tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of files in a folder of the output by their ending, relative to the output.

    A name that is not UTF-8 is somebody else's: a run never writes one.
    """
    for path in filesystem.files(filesystem.join(output, folder)):
        if path.endswith(endings) and replace_surrogates(path) == path:
            yield filesystem.join(folder, path)


@composite
def FindFiles(pipeline: beam.Pipeline, options: Options) -> beam.PCollection:
    """List the pictures or packs, and the DICOM results, by paths relative to the output."""
    packed, output = options.cam_store == "parquet", filesystem.absolute(options.output)
    ending = ".parquet" if packed else overlay.FORMATS[options.cam_format]
    return (
        pipeline
        | beam.Impulse()
        | beam.FlatMap(
            lambda _: itertools.chain(
                _find(output, picture_paths.CAMS, ending),
                _find(output, picture_paths.DICOM, ".dcm"),
            )
        )
    )


def _list_files(row: Prediction) -> list[str]:
    """Return the paths of the files that a row names."""
    return [*([row.cam] if row.cam else []), *row.dicom]


@composite
def KeepWithFiles(found: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    """Keep the entries whose files all exist, of `journal.Entry` elements and paths of files."""
    return (
        found
        | grouping.GroupCompactly(
            lambda item: picture_paths.find_stem(
                item if isinstance(item, str) else (_list_files(item.row) or [item.row.uri])[0]
            )
        )
        | beam.FlatMapTuple(lambda _, packs: _keep_with_files(list(grouping.unpack(packs))))
    )


def _keep_with_files(items: list[str | journal.Entry]) -> list[journal.Entry]:
    """Return the entries whose files are all among the paths."""
    paths = {item for item in items if isinstance(item, str)}
    entries = (item for item in items if isinstance(item, journal.Entry))
    return [entry for entry in entries if paths.issuperset(_list_files(entry.row))]


@composite
def DeleteUnnamedFiles(found: tuple[beam.PCollection, beam.PCollection], output: str) -> None:
    """Delete the files in `output` that no row names, of paths of files and `Prediction` rows."""
    left, predictions = found
    named = predictions | "Named" >> beam.FlatMap(
        lambda row: [(path, True) for path in _list_files(row)]
    )
    (
        (left | "Left" >> beam.Map(lambda path: (path, False)), named)
        | grouping.GroupCompactly(lambda item: item[0])
        | beam.FlatMapTuple(lambda _, packs: _find_unnamed(grouping.unpack(packs)))
        | "Delete" >> beam.Map(lambda path: _delete(output, path))
    )


def _find_unnamed(items: Iterable[tuple[str, bool]]) -> set[str]:
    """Return the paths that no row names, of (path, whether a row names it) in any order."""
    left: set[str] = set()
    named: set[str] = set()
    for path, by_row in items:
        (named if by_row else left).add(path)
    return left - named


def _delete(output: str, path: str) -> None:
    """Delete a file, and the copy of its radiograph if it is a picture that has one."""
    filesystem.delete(filesystem.join(output, path))
    if path.startswith(f"{picture_paths.CAMS}/"):
        filesystem.delete(filesystem.join(output, picture_paths.original_path(path)))


def has_former_pictures(options: Options) -> bool:
    """Return whether a resumed run's output may show a former radiograph or map of a changed file.

    These are copies of radiographs, and pictures that humerus-overlay drew of packed maps.
    """
    packed = options.cam_store == "parquet"
    folder, endings = (picture_paths.CAMS, _DRAWN) if packed else (picture_paths.ORIGINALS, "")
    return options.resume and any(_find(filesystem.absolute(options.output), folder, endings))


def delete_drawn_pictures(output: str) -> None:
    """Delete the pictures that humerus-overlay drew of maps which no row names any more.

    Raises:
      StorageError: a file cannot be read or deleted.
    """
    drawn = list(_find(output, picture_paths.CAMS, _DRAWN))
    try:
        current = set(cam_store.list_named_maps(output, Selection()).values()) if drawn else set()
    except DataError as error:
        logging.warning("pictures of changed or removed files may remain in cams/: %s", error)
        return
    for path in drawn:
        if path.rpartition(".")[0] not in current:
            filesystem.delete(filesystem.join(output, path))
