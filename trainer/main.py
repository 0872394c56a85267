"""The trainer's commands. `trainer.errors` defines their exit codes."""

import dataclasses
import functools
import pathlib

from absl import flags
from ml_collections import config_flags

from trainer import errors
from trainer.dataset.options import Options
from trainer.program import command_line, flag_types
from trainer.program.command_line import Main, Program, Result
from trainer.program.flags_from_dataclass import define_flags, read_flags
from trainer.training import recipes


def _write(path: str, text: str) -> None:
    from trainer.storage import write_text

    write_text(path, text)


_Program = functools.partial(
    Program,
    tensorflow=True,
    when_stopped="run the same command to continue from what is finished",
    write=_write,
)


@Program("humerus-phantom", required=("output",))
def phantom(values: flags.FlagValues) -> Main:
    """Renders simulated radiographs in MURA's layout.

    humerus-phantom --output=simulated --patients=400
    """
    output = flag_types.define_path(
        "output",
        None,
        "Folder for MURA-v1.1/ with the simulated radiographs.",
        values,
    )
    patients = flag_types.define_whole_number(
        "patients", 400, "Number of simulated patients.", 2, 99999, values
    )
    seed = flag_types.define_whole_number(
        "seed", 0, "The same seed gives the same images.", 0, 2**32 - 1, values
    )

    def main() -> None:
        command_line.check_writable("output", output.value)
        from trainer.phantom import files

        files.write(output.value, patients.value, seed.value)

    return main


@_Program("humerus-prepare", required=("source", "layout", "data_dir"))
def prepare(values: flags.FlagValues) -> Main:
    """Prepares radiographs as sharded TFRecords, split by patient.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=320
    """
    define_flags(Options, values)
    dry_run = command_line.define_dry_run(values)
    command_line.define_json(values)

    def main() -> Result:
        given = read_flags(Options, values)
        command_line.check_writable("data_dir", given["data_dir"])
        from trainer.dataset import prepare as prepare_lib

        done = prepare_lib.prepare(**given, dry_run=dry_run.value)
        return Result(done.format_table(), dataclasses.asdict(done))

    return main


@_Program("humerus-train", required=("data_dir", "workdir"), rewrite_argv=recipes.replace_names)
def train(values: flags.FlagValues) -> Main:
    """Fine-tunes, evaluates and exports a network; the same command continues a stopped run.

    humerus-train --data_dir=data --workdir=runs/first
    humerus-train --data_dir=data --workdir=runs/second --config=humerus \\
        --config.backbone=xception --config.weights=xception_notop.weights.h5
    """
    data_dir = flag_types.define_path(
        "data_dir", None, "Folder that humerus-prepare wrote to.", values
    )
    workdir = flag_types.define_path("workdir", None, "Folder of the run, local or gs://.", values)
    # Without this, a --flagfile is not searched for settings of the recipe: the search would end
    # at the name of the program.
    flags.FLAGS.set_gnu_getopt(True)
    config = config_flags.DEFINE_config_file(
        "config",
        None,
        f"Recipe ({recipes.list_names()}), or a file of your own; by default, humerus. "
        "--config.KEY=VALUE changes a setting of it, see docs/training.md.",
        flag_values=values,
    )
    folds = flag_types.define_whole_number(
        "folds",
        0,
        "Cross-validate with this many networks, exported as one; 0 trains one network on the "
        "training split.",
        0,
        1000,
        values,
    )
    profile = flags.DEFINE_bool(
        "profile",
        False,
        "Record ten of the first steps for TensorBoard's profiler.",
        flag_values=values,
    )
    dry_run = command_line.define_dry_run(values)
    command_line.define_json(values)

    def main() -> Result | None:
        if folds.value == 1:
            raise errors.ConfigError("--folds=1 holds nothing out; use 2 or more, or omit the flag")
        command_line.check_writable("workdir", workdir.value)
        with config.value.unlocked():
            config.value.recipe = pathlib.PurePath(
                config_flags.get_config_filename(values["config"])
            ).stem
        from trainer.evaluation import metrics
        from trainer.training import dry_run as dry_run_lib
        from trainer.training import train as train_lib
        from trainer.training.job import create_job

        job = create_job(config.value, data_dir.value, workdir.value, folds.value, profile.value)
        if dry_run.value:
            plan = dry_run_lib.plan(job)
            return Result(str(plan), dataclasses.asdict(plan))
        result = train_lib.train_and_evaluate(job)
        if not result:  # Of several hosts, only the first reports.
            return None
        tables = [
            f"{title}:\n{metrics.format_table(result[name])}"
            for name, title in (
                ("out_of_fold", "Out of fold"),
                ("test", "Test split"),
                (
                    "validation",
                    "Validation split (optimistic, since the threshold is chosen on it)",
                ),
            )
            if result.get(name)
        ]
        places = [f"Report: {workdir.value}/report.html", f"Artifact: {workdir.value}/artifact"]
        return Result("\n".join([*tables, *places]), result)

    return main


@_Program("humerus-evaluate", required=("model", "data_dir"))
def evaluate(values: flags.FlagValues) -> Main:
    """Measures an artifact on prepared data, with 95 % intervals.

    humerus-evaluate --model=runs/first/artifact --data_dir=data --json=metrics.json
    humerus-evaluate --model=runs/second/artifact --baseline=runs/first/artifact --data_dir=data
    humerus-evaluate --model=runs/second/artifact --data_dir=data \\
        --baseline=runs/small/artifact --baseline_data_dir=data_256
    """
    model = flag_types.define_path("model", None, "Artifact, local or gs://.", values)
    baseline = flag_types.define_path(
        "baseline",
        None,
        "Another artifact, with which --model is compared image by image.",
        values,
    )
    data_dir = flag_types.define_path(
        "data_dir", None, "Folder that humerus-prepare wrote to.", values
    )
    baseline_data_dir = flag_types.define_path(
        "baseline_data_dir",
        None,
        "Prepared data for a --baseline that takes images of another size.",
        values,
    )
    split = flags.DEFINE_enum(
        "split",
        "test",
        ["train", "validation", "test"],
        "Split to evaluate on.",
        flag_values=values,
    )
    command_line.define_json(values)

    def main() -> Result:
        if baseline_data_dir.value and not baseline.value:
            raise errors.ConfigError(
                "--baseline_data_dir holds the images of a --baseline; name one"
            )
        from trainer.evaluation import evaluate as evaluate_lib
        from trainer.evaluation import metrics

        if baseline.value:
            result = evaluate_lib.compare(
                model.value, baseline.value, data_dir.value, split.value, baseline_data_dir.value
            )
            tables = [metrics.format_comparison(result)]
        else:
            result = evaluate_lib.evaluate(model.value, data_dir.value, split.value)
            tables = [metrics.format_table(result), *metrics.format_slice_tables(result["slices"])]
        return Result(
            "\n".join([*tables, *(f"warning: {warning}" for warning in result["warnings"])]), result
        )

    return main


@_Program("humerus-verify", required=("model",))
def verify(values: flags.FlagValues) -> Main:
    """Measures how well each engine agrees with TensorFlow and how fast it is; checks the maps.

    humerus-verify --model=runs/first/artifact --data_dir=data
    humerus-verify --model=runs/first/artifact --data_dir=data --masks=findings.json
    humerus-verify --model=runs/first/artifact --images=radiographs

    The artifact keeps the measurements, for humerus-score.
    """
    model = flag_types.define_path(
        "model",
        None,
        "Artifact, local or gs://; the measurements and a network in int8 are added to it.",
        values,
    )
    data_dir = flag_types.define_path(
        "data_dir",
        None,
        "Folder that humerus-prepare wrote to; its validation split is measured.",
        values,
    )
    images = flag_types.define_path(
        "images", None, "Folder of images to measure on instead.", values
    )
    masks = flag_types.define_path(
        "masks",
        None,
        "Locations of findings in these images, with which the maps are compared: a COCO file, or "
        "findings.json of humerus-phantom.",
        values,
    )
    requantize = flags.DEFINE_bool(
        "requantize",
        False,
        "Quantise the network to int8 again, with these images.",
        flag_values=values,
    )
    command_line.define_json(values)

    def main() -> Result:
        from trainer.evaluation import map_checks
        from trainer.publishing import verify as verify_lib

        verified = verify_lib.verify_artifact(
            model.value, data_dir.value, images.value, requantize.value, masks.value
        )
        text = (
            f"{verify_lib.format_table(verified)}\n\n{map_checks.format_table(verified.map_checks)}"
        )
        return Result(
            text,
            {
                "model_id": verified.model_id,
                "engines": verified.engines,
                "map_checks": verified.map_checks,
            },
        )

    return main


@_Program("humerus-wait")
def wait(values: flags.FlagValues) -> Main:
    """Waits for the result of another command, as the first step of a Job that needs it.

    humerus-wait --data_dir=gs://bucket/data
    humerus-wait --model=gs://bucket/runs/first/artifact --hours=12
    """
    data_dir = flag_types.define_path(
        "data_dir", None, "Folder that humerus-prepare writes to.", values
    )
    model = flag_types.define_path("model", None, "Artifact that humerus-train writes.", values)
    hours = flag_types.define_number(
        "hours", 6.0, "Hours to wait; then the command ends with exit code 3.", 0, 10000, values
    )

    def main() -> None:
        if bool(data_dir.value) == bool(model.value):
            raise errors.ConfigError("name one thing to wait for: --data_dir or --model")
        from trainer import wait as wait_lib

        wait_lib.wait(data_dir.value, model.value, hours.value * 3600)

    return main


@_Program("humerus-explain", takes_arguments=True)
def explain(values: flags.FlagValues) -> Main:
    """Draws heat maps of an image by several methods, and the outputs of layers: a page per image.

    humerus-explain --model=runs/first/artifact radiograph.png another.dcm --output=explained
    humerus-explain --model=runs/first/artifact --list_layers
    humerus-explain --model=runs/first/artifact radiograph.png --method=grad_cam \\
        --layer=conv4_block24_concat --feature_maps=conv2_block6_concat
    """
    model = flag_types.define_path(
        "model",
        None,
        "Artifact, local or gs://; by default, the first argument that is not a flag.",
        values,
    )
    output = flag_types.define_path("output", "explained", "Folder for the pages.", values)
    method = flags.DEFINE_list(
        "method",
        [
            "grad_cam",
            "hires_cam",
            "grad_cam_pp",
            "layer_cam",
            "fused_layer_cam",
            "score_cam",
            "occlusion",
        ],
        "Comma-separated methods of the maps.",
        flag_values=values,
    )
    layer = flags.DEFINE_string(
        "layer",
        "features",
        "Layer of the maps; fused_layer_cam uses the ends of the blocks up to it.",
        flag_values=values,
    )
    feature_maps = flags.DEFINE_list(
        "feature_maps",
        [],
        "Comma-separated layers whose outputs are shown as a grid.",
        flag_values=values,
    )
    filters = flags.DEFINE_list(
        "filters",
        [],
        "Comma-separated layers whose filter patterns are computed, in up to a minute each.",
        flag_values=values,
    )
    list_layers = flags.DEFINE_bool(
        "list_layers", False, "Print each layer that has a map, with its shape.", flag_values=values
    )
    command_line.define_json(values)

    def main(*arguments: str) -> Result:
        if not (model.value or arguments):
            raise errors.ConfigError("name the artifact first; see humerus-explain --help")
        directory, *images = arguments if model.value is None else (model.value, *arguments)
        if not (images or list_layers.value):
            raise errors.ConfigError(
                "name one or several images after the artifact; see humerus-explain --help"
            )
        command_line.check_writable("output", output.value)
        from trainer.publishing import explain as explain_lib

        if list_layers.value:
            text = explain_lib.list_layers(directory)
            return Result(text, [line.split("\t") for line in text.splitlines()])
        options = explain_lib.Options(
            directory,
            tuple(images),
            output.value,
            tuple(method.value),
            layer.value,
            tuple(feature_maps.value),
            tuple(filters.value),
        )
        explained = explain_lib.explain(options)
        return Result(str(explained), dataclasses.asdict(explained))

    return main
