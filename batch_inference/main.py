"""The scorer's commands. `trainer.errors` defines their exit codes."""

import contextlib
import dataclasses
import functools

from batch_inference import lean_import
from batch_inference.options import GalleryOptions, Options, OverlayOptions
from batch_inference.scoring import engine_loading
from trainer import hub
from trainer.errors import DataError
from trainer.program import path_checks
from trainer.program.command_line import Program, Result, refuse_as_program


def _write(uri: str, text: str) -> None:
    from batch_inference.storage import filesystem, storage_errors

    with storage_errors.explain_write_failure(uri):
        filesystem.write(filesystem.absolute(uri), text.encode("utf-8"), "application/json")


_Program = functools.partial(Program, write=_write)


@_Program(
    "humerus-score",
    Options,
    has_dry_run=True,
    passes_unknown_flags=True,
    when_stopped="finished images are kept; run the same command with --resume to continue",
)
def score(options: Options, *beam_options: str, dry_run: bool) -> Result:
    """Scores radiographs: writes a label, a probability and a class activation map for each file.

    humerus-score --input=radiographs --model=runs/first/artifact --output=scored

    It takes Apache Beam's options too, such as --runner=FlinkRunner or --direct_num_workers=4. With
    several workers the rows come in several files.
    """
    path_checks.check_writable("output", options.output)
    options = dataclasses.replace(options, beam=beam_options, model=hub.fetch(options.model))
    path_checks.check_artifact(options.model)
    path_checks.check_input(options.input)
    if not dry_run:
        engine_loading.begin(options)
        if not options.beam:
            from trainer.workers.imaging import Imaging

            Imaging().warm(options.cam_colours)
    # Importing Beam takes seconds and writes to the terminal, so that it waits until here. The
    # embedded runner needs fewer clients than others.
    with (
        lean_import.pause_garbage_collection(),
        contextlib.nullcontext() if options.beam else lean_import.skip_unused_clients(),
    ):
        from batch_inference import pipeline, preflight

    if dry_run:
        return Result(*preflight.describe_dry_run(preflight.plan(options)))
    with lean_import.skip_ipython(), lean_import.inspect_each_step_once():
        finished = pipeline.run(options)
    return Result(
        str(finished), {"output": finished.output, "kept": finished.kept, **finished.content}
    )


@_Program("humerus-overlay", OverlayOptions)
def overlay(options: OverlayOptions) -> Result:
    """Draws the maps that humerus-score --cam_store=parquet kept: all of them, or a selection.

    humerus-overlay --scored=scored --output=pictures --label=positive --min_probability=0.9
    """
    path_checks.check_writable("output", options.output)
    path_checks.check_folder("scored", options.scored)
    if path_checks.is_missing(options.scored, "cams"):
        raise DataError(
            f"{options.scored}/cams holds no packed maps; score with --cam_store=parquet first"
        )
    from batch_inference.outputs import overlay_pictures

    drawn = overlay_pictures.run(options)
    return Result(str(drawn), dataclasses.asdict(drawn))


@_Program("humerus-gallery", GalleryOptions)
def gallery(options: GalleryOptions) -> Result:
    """Writes gallery.html into a scored folder, with all its images or a selection.

    humerus-gallery --scored=scored --label=positive --min_probability=0.9

    humerus-score writes the gallery of all images itself.
    """
    path_checks.check_scored(options.scored)
    from batch_inference.gallery import page

    written = page.write(options)
    return Result(str(written), dataclasses.asdict(written))


if __name__ == "__main__":
    refuse_as_program()
