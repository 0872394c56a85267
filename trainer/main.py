"""The trainer's commands. `trainer.errors` defines their exit codes."""

import dataclasses
import functools
from collections.abc import Sequence

from ml_collections import ConfigDict

from trainer import errors, hub, options
from trainer.dataset.locate import locate
from trainer.evaluation import metric_tables
from trainer.files.urls import is_remote
from trainer.program import path_checks
from trainer.program.command_line import Program, Result, refuse_as_program
from trainer.program.logging_setup import import_tensorflow
from trainer.training import recipes, sweeps


def _check_prepared(data_dir: str) -> None:
    if not is_remote(data_dir):
        locate(data_dir)


_Program = functools.partial(
    Program, when_stopped="run the same command to continue from what is finished"
)


@Program("humerus-phantom", options.PhantomOptions, has_json=False)
def phantom(given: options.PhantomOptions) -> None:
    """Renders simulated radiographs in MURA's layout.

    humerus-phantom --output=simulated --patients=400
    """
    path_checks.check_writable("output", given.output)
    from trainer.phantom import files

    files.write(given.output, given.patients, given.seed)


@_Program("humerus-prepare", options.PrepareOptions, has_dry_run=True)
def prepare(given: options.PrepareOptions, *, dry_run: bool) -> Result:
    """Prepares radiographs as sharded TFRecords, split by patient.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=320
    """
    path_checks.check_writable("data_dir", given.data_dir)
    path_checks.check_source(given.source, given.layout)
    import_tensorflow()
    from trainer.dataset import prepare as prepare_lib

    done = prepare_lib.prepare(given, dry_run)
    return Result(done.format_table(), done.to_dict())


_TRAIN = _Program(
    "humerus-train",
    options.TrainOptions,
    has_dry_run=True,
    define_config=recipes.define_config,
    list_settings=recipes.list_flags,
    rewrite_argv=lambda argv: recipes.replace_names(sweeps.replace_trial(argv)),
)


@_TRAIN
def train(given: options.TrainOptions, *, config: ConfigDict, dry_run: bool) -> Result | None:
    """Fine-tunes, evaluates and exports a network; the same command continues a stopped run.

    humerus-train --data_dir=data --workdir=runs/first
    humerus-train --data_dir=data --workdir=runs/second --config=humerus \\
        --config.backbone=xception --config.weights=xception_notop.weights.h5
    humerus-train --data_dir=data --workdir=runs/sweep --sweep=sweep.txt --sweep_line=0
    humerus-train --data_dir=data --workdir=runs/third --track=mlflow
    """
    if given.folds == 1:
        raise errors.ConfigError("--folds=1 holds nothing out; use 2 or more, or omit the flag")
    path_checks.check_writable("workdir", given.workdir)
    _check_prepared(given.data_dir)
    path_checks.check_weights(config.weights)
    from trainer.tracking import tracker

    tracker.check_installed(given.track)
    import_tensorflow()
    from trainer.training import dry_run as dry_run_lib
    from trainer.training import train as train_lib
    from trainer.training.job import create_job

    job = create_job(config, given.data_dir, given.workdir, given.folds, given.profile, given.track)
    if dry_run:
        planned = dry_run_lib.plan(job)
        return Result(dry_run_lib.format_plan(planned), planned)
    result = train_lib.train_and_evaluate(job)
    if not result:  # Of several hosts, only the first reports.
        return None
    titles = {
        "out_of_fold": "Out of fold",
        "test": "Test split",
        "validation": "Validation split (optimistic, since the threshold is chosen on it)",
    }
    tables = [
        f"{title}:\n{metric_tables.format_table(result[name])}"
        for name, title in titles.items()
        if result.get(name)
    ]
    places = [f"Report: {given.workdir}/report.html", f"Artifact: {given.workdir}/artifact"]
    return Result("\n".join([*tables, *places]), result)


@_Program("humerus-sweep", options.SweepOptions)
def sweep(given: options.SweepOptions) -> Result:
    """Trains the trials of a sweep one after the other, and prints a table that compares them.

    humerus-sweep --sweep=sweep.txt --data_dir=data --workdir=runs/sweep
    humerus-sweep --sweep=sweep.txt --data_dir=data --workdir=runs/sweep --table_only --split=test

    The same command continues a stopped sweep. If trials fail, the others are still trained and
    compared, and the exit code is not 0.
    """
    path_checks.check_writable("workdir", given.workdir)
    _check_prepared(given.data_dir)
    trials = sweeps.read(given.sweep)
    if not given.table_only:
        _check_trials(trials, given)
    import_tensorflow()
    from trainer.training import run_sweep

    done = run_sweep.run(given)
    return Result(str(done), dataclasses.asdict(done), done.describe_failure())


def _check_trials(trials: Sequence[sweeps.Trial], given: options.SweepOptions) -> None:
    """Raise `ConfigError` where a trial names a setting wrongly, before the first one trains."""
    flags = [f"--{name}={getattr(given, name)}" for name in ("data_dir", "workdir", "sweep")]
    for index, trial in enumerate(trials):
        try:
            _TRAIN.check(["humerus-train", *flags, f"--sweep_line={index}"])
        except errors.ConfigError as error:
            raise errors.ConfigError(f"trial {trial.name} of {given.sweep}: {error}") from error


@_Program("humerus-evaluate", options.EvaluateOptions)
def evaluate(given: options.EvaluateOptions) -> Result:
    """Measures an artifact on labelled images, with 95 % intervals.

    humerus-evaluate --model=runs/first/artifact --data_dir=data --json=metrics.json
    humerus-evaluate --model=runs/first/artifact --data_dir=data --predictions=predictions.csv
    humerus-evaluate --model=runs/second/artifact --baseline=runs/first/artifact --data_dir=data
    humerus-evaluate --model=runs/second/artifact --data_dir=data \\
        --baseline=runs/small/artifact --baseline_data_dir=data_256
    humerus-evaluate --model=runs/first/artifact --source=labels.csv --layout=manifest
    """
    data_dir, source, layout = given.data_dir or "", given.source or "", given.layout or ""
    if bool(data_dir) == bool(source) or bool(source) != bool(layout):
        raise errors.ConfigError(
            "name the images: --data_dir for prepared data, or --source and --layout"
        )
    if source and given.baseline:
        raise errors.ConfigError("a --baseline is compared on prepared data; use --data_dir")
    if given.baseline_data_dir and not given.baseline:
        raise errors.ConfigError("--baseline_data_dir holds the images of a --baseline; name one")
    if given.predictions:
        path_checks.check_file_writable("predictions", given.predictions)
        path_checks.check_not_taken("predictions", given.predictions, given)
    for folder in filter(None, (data_dir, given.baseline_data_dir)):
        _check_prepared(folder)
    path_checks.check_artifact(given.model)
    if given.baseline:
        path_checks.check_artifact(given.baseline, "baseline")
    if source:
        path_checks.check_source(source, layout)
    import_tensorflow()
    from trainer.evaluation import evaluate as evaluate_lib

    split, predictions = given.split or "test", given.predictions
    model, baseline = hub.fetch(given.model), given.baseline and hub.fetch(given.baseline)
    if baseline:
        result = evaluate_lib.compare(
            model, baseline, data_dir, split, given.baseline_data_dir, predictions
        )
        tables = [metric_tables.format_comparison(result)]
    else:
        result = (
            evaluate_lib.evaluate_source(
                model, source, layout, given.body_parts, given.split, predictions
            )
            if source
            else evaluate_lib.evaluate(model, data_dir, split, predictions)
        )
        tables = [metric_tables.format_table(result)]
        tables += metric_tables.format_slice_tables(result["slices"])
    warnings = [f"warning: {warning}" for warning in result["warnings"]]
    return Result("\n".join([*tables, *warnings]), result)


@_Program("humerus-verify", options.VerifyOptions)
def verify(given: options.VerifyOptions) -> Result:
    """Measures how well each engine agrees with TensorFlow and how fast it is; checks the maps.

    humerus-verify --model=runs/first/artifact --data_dir=data
    humerus-verify --model=runs/first/artifact --data_dir=data --masks=findings.json
    humerus-verify --model=runs/first/artifact --images=radiographs

    The artifact keeps the measurements, for humerus-score.
    """
    path_checks.check_artifact(given.model)
    path_checks.check_writable("model", given.model)
    if given.data_dir:
        _check_prepared(given.data_dir)
    if given.data_dir and given.images:
        raise errors.ConfigError("name --data_dir or --images to measure on, not both")
    if given.images:
        path_checks.check_images(given.images)
    if given.masks:
        path_checks.check_file("masks", given.masks)
    import_tensorflow()
    from trainer.evaluation import map_checks
    from trainer.publishing import verify as verify_lib

    verified = verify_lib.verify_artifact(
        given.model, given.data_dir, given.images, given.requantize, given.masks
    )
    engines, maps = verify_lib.format_table(verified), map_checks.format_table(verified.map_checks)
    shown = ("model_id", "engines", "map_checks")
    return Result(f"{engines}\n\n{maps}", {name: getattr(verified, name) for name in shown})


@_Program("humerus-combine", options.CombineOptions, takes_arguments=True)
def combine(given: options.CombineOptions, *models: str) -> Result:
    """Combines artifacts, of one or of several backbones, to one that averages them.

    humerus-combine runs/first/artifact runs/resnet/artifact --data_dir=data \\
        --output=runs/both/artifact
    """
    if len(models) < 2:
        raise errors.ConfigError(
            f"name two or more artifacts to combine, separated by spaces; got {len(models)}"
        )
    path_checks.check_writable("output", given.output)
    _check_prepared(given.data_dir)
    for model in models:
        path_checks.check_artifact(model, flag="")
    import_tensorflow()
    from trainer.publishing import combine as combine_lib

    result = combine_lib.combine(models, **vars(given))
    return Result(combine_lib.format_table(result), result)


@Program("humerus-report", options.ReportOptions, takes_arguments=True)
def report(given: options.ReportOptions, *runs: str) -> Result:
    """Sets finished runs side by side on one page: metrics, curves, settings that differ.

    humerus-report runs/first runs/second --output=compare.html
    """
    if not given.output.endswith(".html"):
        raise errors.ConfigError(f"--output={given.output} is no page; name a file like runs.html")
    path_checks.check_file_writable("output", given.output)
    import_tensorflow()
    from trainer.publishing import compare_runs

    compared = compare_runs.write(runs, given.output)
    document = {run.folder: {"split": run.split, "metrics": run.measured} for run in compared}
    return Result(compare_runs.format_table(compared, given.output), document)


@_Program("humerus-wait", options.WaitOptions, has_json=False)
def wait(given: options.WaitOptions) -> None:
    """Waits for the result of another command, as the first step of a Job that needs it.

    humerus-wait --data_dir=gs://bucket/data
    humerus-wait --model=gs://bucket/runs/first/artifact --hours=12
    """
    if bool(given.data_dir) == bool(given.model):
        raise errors.ConfigError("name one thing to wait for: --data_dir or --model")
    import_tensorflow()
    from trainer import wait as wait_lib

    wait_lib.wait(given.data_dir, given.model, given.hours * 3600)


@_Program("humerus-explain", options.ExplainOptions, takes_arguments=True)
def explain(given: options.ExplainOptions, *arguments: str) -> Result:
    """Draws the maps of an image by several methods, and the outputs of layers: a page per image.

    humerus-explain --model=runs/first/artifact radiograph.png another.dcm --output=explained
    humerus-explain --model=runs/first/artifact --list_layers
    humerus-explain --model=runs/first/artifact radiograph.png --method=grad_cam \\
        --layer=conv4_block24_concat --feature_maps=conv2_block6_concat
    """
    if not (given.model or arguments):
        raise errors.ConfigError("name the artifact first; see humerus-explain --help")
    model, *images = arguments if given.model is None else (given.model, *arguments)
    if not (images or given.list_layers):
        raise errors.ConfigError(
            "name one or several images after the artifact; see humerus-explain --help"
        )
    path_checks.check_writable("output", given.output)
    path_checks.check_artifact(model)
    if not given.list_layers:
        path_checks.check_radiographs(images)
    import_tensorflow()
    from trainer.publishing import explain as explain_lib

    if given.list_layers:
        text = explain_lib.list_layers(model)
        return Result(text, [line.split("\t") for line in text.splitlines()])
    explained = explain_lib.explain(model, images, given)
    return Result(str(explained), dataclasses.asdict(explained))


if __name__ == "__main__":
    refuse_as_program()
