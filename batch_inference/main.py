"""The scorer's console programs: flags only. Exit codes are those of `trainer.errors`."""

import dataclasses
import functools
import itertools
from typing import Any

from absl import flags

from trainer.program import command_line, flag_types
from trainer.program.command_line import Main, Program, Result


def _write(uri: str, text: str) -> None:
    from batch_inference.storage import filesystem

    filesystem.write(filesystem.absolute(uri), text.encode("utf-8"), "application/json")


_Program = functools.partial(Program, write=_write)


class _FormatsParser(flags.ListParser):
    """A list of which each member is known."""

    def parse(self, argument: str | list[str]) -> list[str]:
        formats = super().parse(argument)
        if not formats or set(formats) - {"jsonl", "csv", "parquet"}:
            raise ValueError("expected one or several of jsonl,csv,parquet")
        return formats


@_Program(
    "humerus-score",
    required=("input", "model", "output"),
    passes_on=True,
    when_stopped="what was scored is kept: the same command with --resume goes on from there",
)
def score(values: flags.FlagValues) -> Main:
    """Scores radiographs: a label, a probability and a picture of where the model looked, for every file of a folder.

    humerus-score --input=radiographs --model=runs/first/artifact --output=scored

    Every option of Apache Beam may be added, as --runner=FlinkRunner or --direct_num_workers=4.
    """
    flag_types.define_path(
        "input",
        None,
        "Folder (with its subfolders), glob, gs:// prefix, or manifest: .txt with a path on each line, .csv with a column path.",
        values,
        flag_types.BEAM_SCHEMES,
    )
    flag_types.define_path(
        "model",
        None,
        "The `artifact` folder that training exported, local or gs://.",
        values,
        flag_types.BEAM_SCHEMES,
    )
    output = flag_types.define_path(
        "output", None, "Folder for the results, local or gs://.", values, flag_types.BEAM_SCHEMES
    )
    flags.DEFINE_multi(
        flags.ListParser(),
        flags.CsvListSerializer(","),
        "exclude",
        [],
        "Glob patterns of what to leave out, by path below the input or by name; several with commas, or the flag again.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "recursive", True, "Whether a folder counts with its subfolders.", flag_values=values
    )
    flags.DEFINE_enum(
        "frames",
        "one",
        ["one", "all"],
        "all: a row for each frame of a DICOM file; one: such a file is rejected.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "other_body_parts",
        "score",
        ["score", "reject"],
        "What to do with DICOM files of another body part than the model was made for: "
        "score them with a warning in the row, or reject them.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "study_key",
        "auto",
        "What images of one study share: folder, path (MURA's patientNNNNN/studyK), dicom (StudyInstanceUID), a column of the manifest, "
        "or auto: the manifest's column study, else dicom, else path, else folder but for files in the root of the input.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "id_salt",
        None,
        "Secret that turns DICOM study UIDs into pseudonyms, the same in every run; without one, who has the UIDs can recognise them.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "engine",
        "auto",
        ["auto", "tensorflow", "openvino"],
        "auto: the fastest that the artifact records as verified.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "precision",
        "auto",
        ["auto", "float32", "bfloat16", "int8", "float16"],
        "Arithmetic of the engine: OpenVINO has float32, bfloat16 and int8, TensorFlow float32 and, on a GPU, float16.",
        flag_values=values,
    )
    flag_types.define_number(
        "threshold",
        None,
        "Probability from which on an image, and a study, is called positive, none uncertain; without it, the artifact's own.",
        0,
        1,
        values,
    )
    flag_types.define_whole_number(
        "batch_size", 32, "Images that the network takes at once.", 1, 4096, values
    )
    flags.DEFINE_enum(
        "cam",
        "overlay",
        ["overlay", "heatmap", "side_by_side", "none"],
        "Picture to draw for each image: the map on the radiograph, the map alone, both side by side, or none.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "method",
        "grad_cam",
        "What draws the maps: grad_cam at the price of the probability, or one that training exported (--config.cam_methods).",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cam_format",
        "jpeg",
        ["jpeg", "png", "webp"],
        "File format of the pictures.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cam_colours",
        "viridis",
        ["viridis", "jet"],
        "Colours of the maps; jet misleads without colour vision.",
        flag_values=values,
    )
    flag_types.define_number(
        "cam_min_probability",
        0.0,
        "Draw only images with at least this probability.",
        0,
        1,
        values,
    )
    flags.DEFINE_enum(
        "cam_store",
        "files",
        ["files", "parquet"],
        "files: a picture per image; parquet: maps by the hundred in a file, for humerus-overlay to draw any of them later.",
        flag_values=values,
    )
    flags.DEFINE(
        _FormatsParser(),
        "format",
        "jsonl,csv",
        "File formats of the rows, one or several of jsonl,csv,parquet.",
        flag_values=values,
        serializer=flags.CsvListSerializer(","),
    )
    flags.DEFINE_string(
        "bigquery",
        None,
        "PROJECT:DATASET whose tables predictions, studies and rejections get the rows too; they are made where missing.",
        flag_values=values,
    )
    flag_types.define_number(
        "max_rejection_rate",
        1.0,
        "End with an error when more than this share is rejected.",
        0,
        1,
        values,
    )
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on where a run of the same model and options was stopped; of a finished one, score what is new or changed.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Delete the results that --output holds from an earlier run.",
        flag_values=values,
    )
    dry_run = command_line.define_dry_run(values)
    command_line.define_json(values)

    def main(*beam_options: str) -> Result:
        command_line.check_writable("output", output.value)
        # Only now: importing Beam takes seconds, and speaks.
        from batch_inference import pipeline, preflight
        from batch_inference.options import Options

        given = _options_of(Options, values)
        given["exclude"] = tuple(itertools.chain.from_iterable(given["exclude"]))
        options = Options(**given, beam=beam_options)
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
    """Draws the maps that humerus-score --cam_store=parquet kept: all, or those that are asked for.

    humerus-overlay --scored=scored --output=pictures --label=positive --min_probability=0.9
    """
    flag_types.define_path(
        "scored",
        None,
        "Folder of a run with --cam_store=parquet, local or gs://.",
        values,
        flag_types.BEAM_SCHEMES,
    )
    output = flag_types.define_path(
        "output",
        None,
        "Folder for the pictures, local or gs://; --scored will do.",
        values,
        flag_types.BEAM_SCHEMES,
    )
    _define_selection(values)
    flags.DEFINE_enum(
        "style",
        "overlay",
        ["overlay", "heatmap", "side_by_side"],
        "As --cam of humerus-score.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cam_format",
        "jpeg",
        ["jpeg", "png", "webp"],
        "File format of the pictures.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "cam_colours", "viridis", ["viridis", "jet"], "Colours of the maps.", flag_values=values
    )
    command_line.define_json(values)

    def main() -> Result:
        command_line.check_writable("output", output.value)
        from batch_inference.outputs import redraw

        drawn = redraw.run(redraw.Options(**_options_of(redraw.Options, values)))
        return Result(str(drawn), dataclasses.asdict(drawn))

    return main


@_Program("humerus-gallery", required=("scored",))
def gallery(values: flags.FlagValues) -> Main:
    """Writes gallery.html into a scored folder, of all its images or of those that are asked for; humerus-score does so itself.

    humerus-gallery --scored=scored --label=positive --min_probability=0.9
    """
    flag_types.define_path(
        "scored",
        None,
        "Folder of a finished run, local or gs://.",
        values,
        flag_types.BEAM_SCHEMES,
    )
    _define_selection(values)
    command_line.define_json(values)

    def main() -> Result:
        from batch_inference.gallery import page as gallery_lib

        written = gallery_lib.write(gallery_lib.Options(**_options_of(gallery_lib.Options, values)))
        return Result(str(written), dataclasses.asdict(written))

    return main


def _define_selection(values: flags.FlagValues) -> None:
    """Which images of a scored folder are meant."""
    flags.DEFINE_string(
        "uri",
        "*",
        "Only inputs whose URI matches this glob; * stands for slashes too.",
        flag_values=values,
    )
    flag_types.define_number(
        "min_probability",
        0.0,
        "Only images with at least this probability.",
        0,
        1,
        values,
    )
    flags.DEFINE_enum(
        "label",
        None,
        ["positive", "negative", "uncertain"],
        "Only images of this label.",
        flag_values=values,
    )


def _options_of(kind: type, values: flags.FlagValues) -> dict[str, Any]:
    """Flags by name, those that are fields of the dataclass `kind`."""
    return {
        field.name: values[field.name].value
        for field in dataclasses.fields(kind)
        if field.name in values
    }
