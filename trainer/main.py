"""The trainer's commands: flags only.

Exit codes: 0 done, 2 the command line or configuration is wrong, 3 the data is wrong, 4 stopped by a signal after a
checkpoint, 1 anything else.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging
from ml_collections import config_flags

from trainer import errors

_CONFIGS = pathlib.Path(__file__).parent / "configs"


def phantom() -> None:
    """Simulated radiographs in MURA's layout.

    humerus-phantom --output=simulated --patients=400
    """
    output = flags.DEFINE_string("output", None, "Folder that gets MURA-v1.1/ with the simulated radiographs.", required=True)
    patients = flags.DEFINE_integer("patients", 400, "Number of simulated patients.", lower_bound=2)
    seed = flags.DEFINE_integer("seed", 0, "The same seed gives the same images.", lower_bound=0)

    def main() -> None:
        from trainer import phantom as phantom_lib

        phantom_lib.write(output.value, patients.value, seed.value)

    _run(main, phantom)


def prepare() -> None:
    """Radiographs -> TFRecords.

    humerus-prepare --source=MURA-v1.1 --layout=mura --data_dir=data --image_size=320
    """
    source = flags.DEFINE_string(
        "source", None, "Folder (layouts mura, folders) or CSV file (manifest); local or gs://.", required=True
    )
    layout = flags.DEFINE_enum("layout", None, ["mura", "folders", "manifest"], "How the source is laid out.", required=True)
    data_dir = flags.DEFINE_string("data_dir", None, "Where the prepared data go; local or gs://.", required=True)
    image_size = flags.DEFINE_integer(
        "image_size", 320, "Side of the square that every image is letterboxed to, in pixels.", lower_bound=32
    )
    body_parts = flags.DEFINE_list("body_parts", ["XR_HUMERUS"], "Layout mura: body parts to take, or `all`.")
    validation_fraction = flags.DEFINE_float("validation_fraction", 0.15, "Share of the patients, where the source names no such split.")
    test_fraction = flags.DEFINE_float("test_fraction", 0.2, "Share of the patients, where the source names no test split.")
    seed = flags.DEFINE_integer("seed", 0, "Of the draw of patients into splits.")
    overwrite = flags.DEFINE_bool("overwrite", False, "Replace other data prepared in the same place.")

    def main() -> None:
        from trainer import prepare as prepare_lib

        prepare_lib.prepare(
            source.value,
            layout.value,
            data_dir.value,
            image_size=image_size.value,
            body_parts=tuple(body_parts.value),
            validation_fraction=validation_fraction.value,
            test_fraction=test_fraction.value,
            seed=seed.value,
            overwrite=overwrite.value,
        )

    _run(main, prepare)


def train() -> None:
    """Fine-tunes, evaluates, exports.

    humerus-train --data_dir=data --workdir=runs/first
    humerus-train --data_dir=data --workdir=runs/second --config=humerus --config.weights=xception_notop.weights.h5 \\
        --config.backbone=xception
    """
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare wrote.", required=True)
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of the run; the same command goes on where it was stopped.", required=True
    )
    config = config_flags.DEFINE_config_file(
        "config", str(_CONFIGS / "humerus.py"), "Name of a recipe in trainer/configs, or a file."
    )

    def main() -> None:
        from trainer import metrics
        from trainer import train as train_lib

        result = train_lib.train_and_evaluate(config.value, data_dir.value, workdir.value)
        if result.get("test"):
            print(f"Test split:\n{metrics.table(result['test'])}\nArtifact: {workdir.value}/artifact")

    _run(main, train, _recipe_paths(sys.argv))


def evaluate() -> None:
    """Metrics of an artifact on prepared data, with 95 % intervals.

    humerus-evaluate --model=runs/first/artifact --data_dir=data --json=metrics.json
    """
    model = flags.DEFINE_string("model", None, "Artifact directory.", required=True)
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare wrote.", required=True)
    split = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split to evaluate on.")
    json_file = flags.DEFINE_string("json", None, "File that gets the metrics as JSON.")

    def main() -> None:
        from trainer import checkpoints, metrics
        from trainer import evaluate as evaluate_lib

        result = evaluate_lib.evaluate(model.value, data_dir.value, split.value)
        print(metrics.table(result))
        if json_file.value:
            checkpoints.write_text(json_file.value, json.dumps(result, indent=2) + "\n")

    _run(main, evaluate)


def _recipe_paths(argv: Sequence[str]) -> list[str]:
    """`--config=humerus` -> the file of that name among our recipes; paths stay."""

    def path(name: str) -> str:
        known = _CONFIGS / f"{name}.py"
        if known.is_file():
            return str(known)
        if not pathlib.Path(name.split(":")[0]).is_file():
            names = ", ".join(sorted(p.stem for p in _CONFIGS.glob("[a-z]*.py")))
            sys.exit(_usage_error(f"--config={name}: neither one of our recipes ({names}) nor a file"))
        return name

    return [f"--config={path(a.partition('=')[2])}" if a.startswith(("--config=", "-config=")) else a for a in argv]


def _usage_error(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return errors.EXIT_CONFIG


def _run(main: Callable[[], None], command: Callable[[], None], argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs `main`, and ends the process with the documented exit code."""

    def guarded(arguments: Sequence[str]) -> int:
        if len(arguments) > 1:
            return _usage_error(f"unexpected argument {arguments[1]!r}; flags have the form --name=value")
        logging.set_verbosity(logging.INFO)
        logging.set_stderrthreshold("info")
        return _exit_code(main)

    sys.modules["__main__"].__doc__ = command.__doc__
    app.run(guarded, argv=list(argv or sys.argv), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(list(argv))
    except (
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
    ) as error:  # what ml_collections raises for a misspelt or mistyped key
        sys.exit(_usage_error(str(error).strip("'\"")))


def _exit_code(main: Callable[[], None]) -> int:
    from trainer.artifact import ArtifactError

    try:
        main()
    except errors.ConfigError as error:
        return _usage_error(str(error))
    except (errors.DataError, ArtifactError) as error:
        sys.stderr.write(f"error: {error}\n")
        return errors.EXIT_DATA
    except errors.StoppedError as error:
        sys.stderr.write(f"{error}\n")
        return errors.EXIT_STOPPED
    return errors.EXIT_DONE
