"""The scorer's commands. `trainer.errors` defines their exit codes."""

import dataclasses
import functools

from absl import flags

from batch_inference.options import GalleryOptions, Options, OverlayOptions
from trainer.program import command_line
from trainer.program.command_line import Main, Program, Result
from trainer.program.flags_from_dataclass import define_flags, read_flags


def _write(uri: str, text: str) -> None:
    from batch_inference.storage import filesystem

    filesystem.write(filesystem.absolute(uri), text.encode("utf-8"), "application/json")


_Program = functools.partial(Program, write=_write)


@_Program(
    "humerus-score",
    required=("input", "model", "output"),
    passes_unknown_flags=True,
    when_stopped="finished images are kept; run the same command with --resume to continue",
)
def score(values: flags.FlagValues) -> Main:
    """Scores radiographs: writes a label, a probability and a heat map for each file of a folder.

    humerus-score --input=radiographs --model=runs/first/artifact --output=scored

    It takes Apache Beam's options too, such as --runner=FlinkRunner or --direct_num_workers=4.
    """
    define_flags(Options, values)
    dry_run = command_line.define_dry_run(values)
    command_line.define_json(values)

    def main(*beam_options: str) -> Result:
        options = Options(**read_flags(Options, values), beam=beam_options)
        command_line.check_writable("output", options.output)
        # Importing Beam takes seconds and writes to the terminal, so that it waits until here.
        from batch_inference import pipeline, preflight

        if dry_run.value:
            planned = preflight.plan(options).dry_run()
            return Result(str(planned), dataclasses.asdict(planned))
        finished = pipeline.run(options)
        return Result(
            str(finished), {"output": finished.output, "kept": finished.kept, **finished.content}
        )

    return main


@_Program("humerus-overlay", required=("scored", "output"))
def overlay(values: flags.FlagValues) -> Main:
    """Draws the maps that humerus-score --cam_store=parquet kept: all of them, or a selection.

    humerus-overlay --scored=scored --output=pictures --label=positive --min_probability=0.9
    """
    define_flags(OverlayOptions, values)
    command_line.define_json(values)

    def main() -> Result:
        options = OverlayOptions(**read_flags(OverlayOptions, values))
        command_line.check_writable("output", options.output)
        from batch_inference.outputs import redraw

        drawn = redraw.run(options)
        return Result(str(drawn), dataclasses.asdict(drawn))

    return main


@_Program("humerus-gallery", required=("scored",))
def gallery(values: flags.FlagValues) -> Main:
    """Writes gallery.html into a scored folder, with all its images or a selection.

    humerus-gallery --scored=scored --label=positive --min_probability=0.9

    humerus-score writes the gallery of all images itself.
    """
    define_flags(GalleryOptions, values)
    command_line.define_json(values)

    def main() -> Result:
        from batch_inference.gallery import page

        written = page.write(GalleryOptions(**read_flags(GalleryOptions, values)))
        return Result(str(written), dataclasses.asdict(written))

    return main
