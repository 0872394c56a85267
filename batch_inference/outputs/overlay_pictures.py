"""Draw packed maps of a scored folder as pictures (humerus-overlay)."""

import dataclasses
import io
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.parquet
from absl import logging

from batch_inference.options import OverlayOptions
from batch_inference.outputs import cam_store, picture_paths, progress, run_record
from batch_inference.outputs.records import PackedCam
from batch_inference.storage import filesystem, storage_errors
from trainer import machine
from trainer.artifact import METHOD_TITLES, ONE_PASS_METHOD
from trainer.drawing import legend, overlay
from trainer.errors import ConfigError, DataError

_COLUMNS = [field.name for field in dataclasses.fields(PackedCam)]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The number of pictures drawn and of failures, and the folder of the pictures."""

    pictures: int
    failed: int
    folder: str

    def __str__(self) -> str:
        failed = f", {self.failed} could not be drawn (see the log)" if self.failed else ""
        return f"{self.pictures} pictures drawn{failed}; they are in {self.folder}"


def run(options: OverlayOptions) -> Drawn:
    """Draw the maps of the selected rows, a pack at a time, with one thread per core.

    The pictures in a pack are JPEG files that a run encoded itself, not files from outside, so that
    they need no worker process.

    Raises:
      ConfigError: the output holds the results of another run.
      DataError: there are no packed maps, the run is not finished, a file is damaged, or the
        options select none.
    """
    scored, output = filesystem.absolute(options.scored), filesystem.absolute(options.output)
    folder = filesystem.join(scored, picture_paths.CAMS)
    if not any(name.endswith(".parquet") for name in filesystem.names(folder)):
        raise DataError(f"{folder} holds no packed maps; score with --cam_store=parquet first")
    run = _read_run(scored, output)
    if options.cam_legend and run is None:
        raise DataError(
            f"{scored} lacks the {run_record.RUN_JSON} of a run, which --cam_legend needs; "
            "omit the flag"
        )
    method = (run or {"options": {}})["options"].get("method", ONE_PASS_METHOD)
    with storage_errors.explain_failure(DataError, f"{scored} cannot be read", "check access"):
        named = cam_store.group_selected_by_pack(scored, options)
    pictures = failed = 0
    with ThreadPoolExecutor(machine.cores()) as pool, progress.show(None):
        for pack, images in sorted(named.items()):
            done = list(
                pool.map(
                    lambda cam: _draw(cam, method, options, output),
                    select_maps(filesystem.join(scored, pack), images),
                )
            )
            pictures, failed = pictures + sum(done), failed + len(done) - sum(done)
    if not pictures:
        raise DataError(
            f"{failed} pictures could not be drawn (see the log)"
            if failed
            else f"none of the maps in {folder} is selected by --uri, --min_probability and "
            "--label; change or omit them"
        )
    return Drawn(pictures, failed, filesystem.join(output, picture_paths.CAMS))


def _read_run(scored: str, output: str) -> dict[str, Any] | None:
    """Return `run.json` of the scored folder; None where there is none, or it is damaged.

    Raises:
      ConfigError: the output is that of another run.
      DataError: the run is not finished.
    """
    run = run_record.read(scored, DataError, scored)
    there = run_record.read(output, ConfigError, f"--output={output}")
    if run and run.get("state") == "running":
        raise DataError(
            f"the run in {scored} is not finished; finish it with humerus-score --resume first"
        )
    if there and there != run:
        raise ConfigError(
            f"--output={output} holds the results of a different run than --scored={scored}; "
            "choose another folder"
        )
    return run


def select_maps(pack: str, images: Set[tuple[str, int | None]]) -> list[PackedCam]:
    """Return the maps of some images, each a `uri` and a `frame`, from a pack.

    Raises:
      DataError: the pack is missing or damaged.
    """
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(filesystem.read(pack))) as file:
            columns = file.read(["uri", "frame"])
            fits = [(row["uri"], row["frame"]) in images for row in columns.to_pylist()]
            rows = file.read(_COLUMNS).filter(fits).to_pylist() if any(fits) else []
            return [PackedCam(**row) for row in rows]
    except (storage_errors.StorageError, pyarrow.ArrowException, KeyError, TypeError) as error:
        raise DataError(f"{pack} cannot be read as packed maps ({error}); score again") from error


def _draw(packed: PackedCam, method: str, options: OverlayOptions, output: str) -> bool:
    """Draw and write one map; return whether that succeeded, and log it where it did not."""
    uri = filesystem.join(output, packed.path + overlay.FORMATS[options.cam_format])
    try:
        drawn = cam_store.draw_map(packed, options.style, options.cam_colours)
        if options.cam_legend:
            drawn = legend.add(drawn, _describe(packed, method, options))
        contents = overlay.encode(drawn, options.cam_format)
        filesystem.write(uri, contents, overlay.MIME_TYPES[options.cam_format])
    except Exception as error:
        if reason := storage_errors.find_write_failure(error):
            raise storage_errors.UnwritableError(
                f"no more pictures can be written to {output} ({reason}); fix that, then run the "
                "same command again"
            ) from error
        # A damaged map must not fail the others.
        logging.error("the picture of %s could not be drawn: %s", packed.uri, error)
        return False
    progress.advance()
    return True


def _describe(packed: PackedCam, method: str, options: OverlayOptions) -> legend.Legend:
    """Return what the strip below the picture of a map says."""
    return legend.Legend(
        scale=packed.scale,
        unit=legend.UNIT,
        method=METHOD_TITLES.get(method, method),
        model=packed.model,
        rows=packed.cam_height,
        columns=packed.cam_width,
        image_size=packed.image_size,
        style=options.style,
        colours=options.cam_colours,
    )
