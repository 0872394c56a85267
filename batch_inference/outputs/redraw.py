"""Packed maps of a scored folder -> pictures, those that are asked for."""

import dataclasses
import fnmatch
import io
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet
from absl import logging

from batch_inference.outputs import cam_store, picture_paths, progress
from batch_inference.outputs.records import PackedCam
from batch_inference.storage import filesystem
from trainer import overlay
from trainer.engines import usable_cores
from trainer.errors import DataError

_COLUMNS = [field.name for field in dataclasses.fields(PackedCam)]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; names and meanings are those of the flags."""

    scored: str
    output: str
    uri: str = "*"
    min_probability: float = 0.0
    label: str | None = None
    style: str = "overlay"
    cam_colours: str = "viridis"
    cam_format: str = "jpeg"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """How many pictures were drawn, how many could not be, and in which folder they are."""

    pictures: int
    failed: int
    folder: str

    def __str__(self) -> str:
        failed = f", {self.failed} could not be drawn (see the log)" if self.failed else ""
        return f"{self.pictures} pictures drawn{failed}; they are in {self.folder}"


def run(options: Options) -> Drawn:
    """Draws what is asked for, in as many threads as there are cores, a pack at a time.

    Raises:
      DataError: no packed maps, a damaged file, or none that is asked for.
    """
    scored, output = filesystem.absolute(options.scored), filesystem.absolute(options.output)
    folder = filesystem.join(scored, picture_paths.CAMS)
    packs = [name for name in filesystem.names(folder) if name.endswith(".parquet")]
    if not packs:
        raise DataError(f"{folder} holds no packed maps; score with --cam_store=parquet first")
    pictures = failed = 0
    with ThreadPoolExecutor(usable_cores()) as pool, progress.show(None):
        # In order of the attempts: of a file that has changed since, the newest map is drawn last.
        for name in sorted(packs):
            done = list(
                pool.map(
                    lambda cam: _draw(cam, options, output),
                    _chosen(filesystem.join(folder, name), options),
                )
            )
            pictures, failed = pictures + sum(done), failed + len(done) - sum(done)
    if not pictures:
        raise DataError(
            f"{failed} pictures could not be drawn (see the log)"
            if failed
            else f"none of the maps in {folder} is of what was asked for; see --uri, --min_probability and --label"
        )
    return Drawn(pictures, failed, filesystem.join(output, picture_paths.CAMS))


def _chosen(pack: str, options: Options) -> list[PackedCam]:
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(filesystem.read(pack))) as file:
            fits = [
                options.label in (None, row["label"])
                and row["probability"] >= options.min_probability
                and fnmatch.fnmatchcase(row["uri"], options.uri)
                for row in file.read(["uri", "label", "probability"]).to_pylist()
            ]
            rows = file.read(_COLUMNS).filter(fits).to_pylist() if any(fits) else []
            return [PackedCam(**row) for row in rows]
    except (filesystem.StorageError, pyarrow.ArrowException, KeyError, TypeError) as error:
        raise DataError(f"{pack} cannot be read as packed maps ({error}); score again") from error


def _draw(packed: PackedCam, options: Options, output: str) -> bool:
    uri = filesystem.join(output, packed.path + overlay.FORMATS[options.cam_format])
    try:
        contents = overlay.encode(
            cam_store.draw_map(packed, options.style, options.cam_colours), options.cam_format
        )
        filesystem.write(uri, contents, overlay.MIME_TYPES[options.cam_format])
    except Exception as error:
        # One damaged map must not cost the others.
        logging.error("the picture of %s could not be drawn: %s", packed.uri, error)
        return False
    progress.advance()
    return True
