"""The trainer's commands: flags only.

Exit codes: 0 done, 2 the command line or configuration is wrong, 3 the data is wrong, 4 stopped by a signal after a
checkpoint, 1 anything else.
"""

import inspect
import json
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags, logging
from ml_collections import config_flags

from trainer import errors, vitals

_PACKAGE = pathlib.Path(__file__).parent
_CONFIGS = _PACKAGE / "configs"


def phantom() -> int:
    """Simulated radiographs in MURA's layout.

    humerus-phantom --output=simulated --patients=400
    """
    output = flags.DEFINE_string("output", None, "Folder that gets MURA-v1.1/ with the simulated radiographs.", required=True)
    patients = flags.DEFINE_integer("patients", 400, "Number of simulated patients.", lower_bound=2)
    seed = flags.DEFINE_integer("seed", 0, "The same seed gives the same images.", lower_bound=0)

    def main() -> None:
        from trainer.phantom import files

        files.write(output.value, patients.value, seed.value)

    return _run(main, phantom)


def prepare() -> int:
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
    validation_fraction = flags.DEFINE_float(
        "validation_fraction", 0.15, "Share of the patients, where the source names no such split."
    )
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

    return _run(main, prepare)


def train() -> int:
    """Fine-tunes, evaluates, exports.

    humerus-train --data_dir=data --workdir=runs/first
    humerus-train --data_dir=data --workdir=runs/second --config=humerus --config.weights=xception_notop.weights.h5 \\
        --config.backbone=xception
    """
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare wrote.", required=True)
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of the run; the same command goes on where it was stopped.", required=True
    )
    try:  # it looks into a --flagfile at once
        config = config_flags.DEFINE_config_file("config", None, "Name of a recipe in trainer/configs, or a file.")
    except flags.Error as error:
        return _usage_error(str(error))
    folds = flags.DEFINE_integer(
        "folds",
        0,
        "Cross-validate: so many networks, exported together as one; 0 trains one on the training split.",
        lower_bound=0,
    )
    profile = flags.DEFINE_bool("profile", False, "Trace ten of the first steps for TensorBoard's profiler.")

    def main() -> None:
        from trainer import metrics
        from trainer import train as train_lib

        if folds.value == 1:
            raise errors.ConfigError("--folds=1 holds nothing out; give 2 or more, or leave it away")
        result = train_lib.train_and_evaluate(config.value, data_dir.value, workdir.value, folds.value, profile.value)
        for name, title in (("out_of_fold", "Out of fold"), ("test", "Test split")):
            if result.get(name):
                print(f"{title}:\n{metrics.table(result[name])}")
        print(f"Artifact: {workdir.value}/artifact")

    return _run(main, train, _recipe_paths)


def evaluate() -> int:
    """Metrics of an artifact on prepared data, with 95 % intervals.

    humerus-evaluate --model=runs/first/artifact --data_dir=data --json=metrics.json
    humerus-evaluate --model=runs/second/artifact --baseline=runs/first/artifact --data_dir=data
    """
    model = flags.DEFINE_string("model", None, "Artifact directory.", required=True)
    baseline = flags.DEFINE_string("baseline", None, "Another artifact: says how much better --model is, image by image.")
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare wrote.", required=True)
    split = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split to evaluate on.")
    json_file = flags.DEFINE_string("json", None, "File that gets the metrics as JSON.")

    def main() -> None:
        from trainer import checkpoints, metrics
        from trainer import evaluate as evaluate_lib

        if baseline.value:
            result = evaluate_lib.compare(model.value, baseline.value, data_dir.value, split.value)
            print(metrics.comparison_table(result))
        else:
            result = evaluate_lib.evaluate(model.value, data_dir.value, split.value)
            print(metrics.table(result))
        if json_file.value:
            checkpoints.write_text(json_file.value, json.dumps(result, indent=2) + "\n")

    return _run(main, evaluate)


def verify() -> int:
    """How far each engine and precision agrees with TensorFlow, how fast it is here, and whether the maps mean something; kept in the
    artifact, for humerus-score.

    humerus-verify --model=runs/first/artifact --data_dir=data
    humerus-verify --model=runs/first/artifact --data_dir=data --masks=findings.json
    humerus-verify --model=runs/first/artifact --images=radiographs
    """
    model = flags.DEFINE_string(
        "model", None, "Artifact directory; gets the measurements and a network in int8.", required=True
    )
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare wrote; measured on its validation split.")
    images = flags.DEFINE_string("images", None, "Folder of images to measure on instead.")
    masks = flags.DEFINE_string(
        "masks",
        None,
        "Where findings are in these images: COCO, or findings.json of humerus-phantom; the maps are held against it.",
    )
    requantize = flags.DEFINE_bool("requantize", False, "Make the network in int8 anew, from the images given here.")

    def main() -> None:
        from trainer import verify as verify_lib
        from trainer.maps import map_checks

        verified = verify_lib.verify_artifact(model.value, data_dir.value, images.value, requantize.value, masks.value)
        print(f"{verify_lib.table(verified)}\n\n{map_checks.table(verified.map_checks)}")

    return _run(main, verify)


def wait() -> int:
    """Waits until what another command makes is there: the first steps of a Job that starts together with that one.

    humerus-wait --data_dir=gs://bucket/data
    humerus-wait --model=gs://bucket/runs/first/artifact --hours=12
    """
    data_dir = flags.DEFINE_string("data_dir", None, "Where humerus-prepare writes.")
    model = flags.DEFINE_string("model", None, "Artifact directory that humerus-train writes.")
    hours = flags.DEFINE_float("hours", 6.0, "Then it ends with the exit code of missing data.", lower_bound=0.0)

    def main() -> None:
        if bool(data_dir.value) == bool(model.value):
            raise errors.ConfigError("name one thing to wait for: --data_dir or --model")
        from trainer import wait as wait_lib

        wait_lib.wait(data_dir.value, model.value, hours.value * 3600)

    return _run(main, wait)


def explain() -> int:
    """Where an artifact looked in an image, by several methods, and what its layers answered: PNG files and a page per image.

    humerus-explain runs/first/artifact radiograph.png another.dcm --output=explained
    humerus-explain runs/first/artifact --list_layers
    humerus-explain runs/first/artifact radiograph.png --method=grad_cam --layer=conv4_block24_concat --feature_maps=conv2_block6_concat
    """
    model = flags.DEFINE_string("model", None, "Artifact directory; without it, the first word that is no flag.")
    output = flags.DEFINE_string("output", "explained", "Folder for the pages.")
    method = flags.DEFINE_list(
        "method",
        ["grad_cam", "hires_cam", "grad_cam_pp", "layer_cam", "fused_layer_cam", "score_cam", "occlusion"],
        "Methods that draw a map.",
    )
    layer = flags.DEFINE_string("layer", "features", "Layer that they look at; fused_layer_cam at the block ends up to it.")
    feature_maps = flags.DEFINE_list("feature_maps", [], "Layers whose maps are shown as a grid.")
    filters = flags.DEFINE_list("filters", [], "Layers whose filter patterns are sought, some seconds to a minute each.")
    list_layers = flags.DEFINE_bool("list_layers", False, "Print every layer with a map, and its shape.")

    def main(*words: str) -> None:
        from trainer import explain as explain_lib

        directory, *images = words if model.value is None else (model.value, *words)
        if list_layers.value:
            print(explain_lib.list_layers(directory))
            return
        if not images:
            raise errors.ConfigError("name one or several images behind the artifact; see --help")
        options = explain_lib.Options(
            directory,
            tuple(images),
            output.value,
            tuple(method.value),
            layer.value,
            tuple(feature_maps.value),
            tuple(filters.value),
        )
        print(explain_lib.explain(options))

    return _run(main, explain, takes_words=True)


def _recipe_paths(argv: Sequence[str]) -> list[str]:
    """`--config=NAME` -> the file of that name among our recipes, `humerus` where none is named; paths stay.

    As an argument, not as the flag's default: a wrong key of a default would raise while the flag is being defined.
    """

    def path(name: str) -> str:
        known = _CONFIGS / f"{name}.py"
        if known.is_file():
            return str(known)
        if not pathlib.Path(name.split(":")[0]).is_file():
            names = ", ".join(sorted(p.stem for p in _CONFIGS.glob("[a-z]*.py")))
            raise SystemExit(_usage_error(f"--config={name}: neither one of our recipes ({names}) nor a file"))
        return name

    named = [a.partition("=")[2] for a in argv if a.startswith(("--config=", "-config="))] or ["humerus"]
    others = [a for a in argv[1:] if not a.startswith(("--config=", "-config="))]
    # The last one counts, as with any flag: a --flagfile may name one too.
    return [argv[0], f"--config={path(named[-1])}", *others]


def _usage_error(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return errors.EXIT_CONFIG


def _run(
    main: Callable[..., None],
    command: Callable[[], int],
    rewritten: Callable[[Sequence[str]], Sequence[str]] = lambda argv: argv,
    takes_words: bool = False,
) -> int:
    """Parses the flags, those of the whole command line `rewritten` first, runs `main`, and returns the documented exit code.

    Words that are no flags go to `main`, of a command that takes any.
    """
    # Else a --flagfile is not looked into for settings of the recipe: the program's own name would end the search.
    flags.FLAGS.set_gnu_getopt(True)
    if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(sys.argv):
        own, all_commands = flags.FLAGS.module_help(__name__), vitals.FLAGS.module_help(vitals.__name__)
        print(f"{inspect.cleandoc(command.__doc__ or '')}\n{own}\n\n{all_commands}")
        return errors.EXIT_DONE
    try:
        _, *words = flags.FLAGS(rewritten(vitals.start(sys.argv)))
    except errors.ConfigError as error:
        return _usage_error(str(error))
    except (flags.Error, AttributeError, TypeError, ValueError, KeyError) as error:  # the last four: a wrong key of the recipe
        missing = re.findall(r"Flag (--\w+) must have a value", str(error))
        said = re.sub(r"[\\']", "", str(error).replace("\\n", ". "))
        return _usage_error(f"{' and '.join(missing)} must be given; see --help" if missing else said)
    if words and not takes_words:
        return _usage_error(f"unexpected argument {words[0]!r}; flags have the form --name=value")
    if takes_words and not words and not flags.FLAGS["model"].value:
        return _usage_error("name the artifact first; see --help")
    _show_our_log()
    # Init processes of containers don't die of SIGTERM by themselves; training, once it has something to save, takes it over.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _exit_code(lambda: main(*words))


def _show_our_log() -> None:
    """Our own lines, short; of the libraries' only warnings and errors."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    handler = logging.get_absl_handler()
    vitals.format_log(python_logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno > python_logging.INFO or record.pathname.startswith(str(_PACKAGE)))


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
    except KeyboardInterrupt:
        sys.stderr.write("stopped by a signal; the same command starts again from what is finished\n")
        return errors.EXIT_STOPPED
    except (errors.TrainingDivergedError, errors.HostLostError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return errors.EXIT_FAILURE
    return errors.EXIT_DONE
