"""The scorer's commands: flags only.

Exit codes: 0 done, 2 the command line or configuration is wrong, 3 the data is wrong, 4 stopped by a signal, 1 anything else.
"""

import inspect
import itertools
import logging as python_logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from absl import flags, logging

from trainer import vitals
from trainer.artifact import ArtifactError
from trainer.errors import EXIT_CONFIG, EXIT_DATA, EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED, ConfigError, DataError, RunnerError

# Of one command alone, so that two commands may have a flag of the same name.
FLAGS = flags.FlagValues()
OVERLAY_FLAGS = flags.FlagValues()
GALLERY_FLAGS = flags.FlagValues()


class _FormatsParser(flags.ListParser):
    """A list of which each member is known."""

    def parse(self, argument: str | list[str]) -> list[str]:
        formats = super().parse(argument)
        if not formats or set(formats) - {"jsonl", "csv", "parquet"}:
            raise ValueError("expected one or several of jsonl,csv,parquet")
        return formats


flags.DEFINE_string(
    "input",
    None,
    "Folder (with its subfolders), glob, gs:// prefix, or manifest: .txt with a path on each line, .csv with a column path.",
    flag_values=FLAGS,
)
flags.DEFINE_string("model", None, "The `artifact` folder that training exported, local or gs://.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the results, local or gs://.", flag_values=FLAGS)
flags.DEFINE_multi(
    flags.ListParser(),
    flags.CsvListSerializer(","),
    "exclude",
    [],
    "Glob patterns of what to leave out, by path below the input or by name; several with commas, or the flag again.",
    flag_values=FLAGS,
)
flags.DEFINE_bool("recursive", True, "Whether a folder counts with its subfolders.", flag_values=FLAGS)
flags.DEFINE_enum(
    "frames",
    "one",
    ["one", "all"],
    "all: a row for each frame of a DICOM file; one: such a file is rejected.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "study_key",
    "auto",
    "What images of one study share: folder, path (MURA's patientNNNNN/studyK), dicom (StudyInstanceUID), a column of the manifest, "
    "or auto: the manifest's column study, else dicom, else path, else folder but for files in the root of the input.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "id_salt",
    None,
    "Secret that turns DICOM study UIDs into pseudonyms, the same in every run; without one, who has the UIDs can recognise them.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "engine",
    "auto",
    ["auto", "tensorflow", "openvino"],
    "auto: the fastest that the artifact records as verified.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "precision",
    "auto",
    ["auto", "float32", "bfloat16", "int8", "float16"],
    "Arithmetic of the engine: OpenVINO has float32, bfloat16 and int8, TensorFlow float32 and, on a GPU, float16.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("batch_size", 32, "Images that the network takes at once.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "cam",
    "overlay",
    ["overlay", "heatmap", "side_by_side", "none"],
    "Picture to draw for each image: the map on the radiograph, the map alone, both side by side, or none.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "method",
    "grad_cam",
    "What draws the maps: grad_cam at the price of the probability, or one that training exported (--config.cam_methods).",
    flag_values=FLAGS,
)
flags.DEFINE_enum("cam_format", "jpeg", ["jpeg", "png", "webp"], "File format of the pictures.", flag_values=FLAGS)
flags.DEFINE_enum(
    "cam_colours", "viridis", ["viridis", "jet"], "Colours of the maps; jet misleads without colour vision.", flag_values=FLAGS
)
flags.DEFINE_float("cam_min_probability", 0.0, "Draw only images with at least this probability.", 0, 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "cam_store",
    "files",
    ["files", "parquet"],
    "files: a picture per image; parquet: maps by the hundred in a file, for humerus-overlay to draw any of them later.",
    flag_values=FLAGS,
)
flags.DEFINE(
    _FormatsParser(),
    "format",
    "jsonl,csv",
    "File formats of the rows, one or several of jsonl,csv,parquet.",
    flag_values=FLAGS,
    serializer=flags.CsvListSerializer(","),
)
flags.DEFINE_string(
    "bigquery",
    None,
    "PROJECT:DATASET whose tables predictions, studies and rejections get the rows too; they are made where missing.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_rejection_rate", 1.0, "End with an error when more than this share is rejected.", 0, 1, flag_values=FLAGS
)
flags.DEFINE_bool(
    "resume",
    False,
    "Go on where a run of the same model and options was stopped; of a finished one, score what is new or changed.",
    flag_values=FLAGS,
)
flags.DEFINE_bool("overwrite", False, "Delete the results that --output holds from an earlier run.", flag_values=FLAGS)
FLAGS.set_gnu_getopt(True)

flags.DEFINE_string("scored", None, "Folder of a run with --cam_store=parquet, local or gs://.", flag_values=OVERLAY_FLAGS)
flags.DEFINE_string("output", None, "Folder for the pictures, local or gs://; --scored will do.", flag_values=OVERLAY_FLAGS)
flags.DEFINE_string("uri", "*", "Only inputs whose URI matches this glob; * stands for slashes too.", flag_values=OVERLAY_FLAGS)
flags.DEFINE_float("min_probability", 0.0, "Only images with at least this probability.", 0, 1, flag_values=OVERLAY_FLAGS)
flags.DEFINE_enum("label", None, ["positive", "negative", "uncertain"], "Only images of this label.", flag_values=OVERLAY_FLAGS)
flags.DEFINE_enum(
    "style", "overlay", ["overlay", "heatmap", "side_by_side"], "As --cam of humerus-score.", flag_values=OVERLAY_FLAGS
)
flags.DEFINE_enum("cam_format", "jpeg", ["jpeg", "png", "webp"], "File format of the pictures.", flag_values=OVERLAY_FLAGS)
flags.DEFINE_enum("cam_colours", "viridis", ["viridis", "jet"], "Colours of the maps.", flag_values=OVERLAY_FLAGS)
OVERLAY_FLAGS.set_gnu_getopt(True)

flags.DEFINE_string("scored", None, "Folder of a finished run, local or gs://.", flag_values=GALLERY_FLAGS)
flags.DEFINE_string("uri", "*", "Only inputs whose URI matches this glob; * stands for slashes too.", flag_values=GALLERY_FLAGS)
flags.DEFINE_float("min_probability", 0.0, "Only images with at least this probability.", 0, 1, flag_values=GALLERY_FLAGS)
flags.DEFINE_enum("label", None, ["positive", "negative", "uncertain"], "Only images of this label.", flag_values=GALLERY_FLAGS)
GALLERY_FLAGS.set_gnu_getopt(True)


def score(argv: Sequence[str] | None = None) -> int:
    """Scores radiographs: a label, a probability and a picture of where the model looked, for every file of a folder.

        humerus-score --input=radiographs/ --model=workdir/artifact --output=scored/

    Flags of this program follow; every option of Apache Beam may be added, as --runner=FlinkRunner or --direct_num_workers=4.
    """

    def main(beam_options: list[str]) -> object:
        # Only now: importing Beam takes seconds, and speaks.
        from batch_inference import pipeline

        given = FLAGS.flag_values_dict()
        given["exclude"] = tuple(itertools.chain.from_iterable(given["exclude"]))
        return pipeline.run(pipeline.Options(**given, beam=tuple(beam_options)))

    when_stopped = "what was scored is kept: the same command with --resume goes on from there"
    return _run("humerus-score", main, score, FLAGS, ("input", "model", "output"), when_stopped, argv)


def overlay(argv: Sequence[str] | None = None) -> int:
    """Draws the maps that humerus-score --cam_store=parquet kept: all, or those that are asked for.

    humerus-overlay --scored=scored/ --output=pictures/ --label=positive --min_probability=0.9
    """

    def main(unknown: list[str]) -> object:
        if unknown:
            raise ConfigError(f"unknown argument {unknown[0]}; see humerus-overlay --help")
        from batch_inference import redraw

        return redraw.run(redraw.Options(**OVERLAY_FLAGS.flag_values_dict()))

    return _run("humerus-overlay", main, overlay, OVERLAY_FLAGS, ("scored", "output"), "run again", argv)


def gallery(argv: Sequence[str] | None = None) -> int:
    """Writes gallery.html into a scored folder, of all its images or of those that are asked for; humerus-score does so itself.

    humerus-gallery --scored=scored/ --label=positive --min_probability=0.9
    """

    def main(unknown: list[str]) -> object:
        if unknown:
            raise ConfigError(f"unknown argument {unknown[0]}; see humerus-gallery --help")
        from batch_inference import gallery as gallery_lib

        return gallery_lib.write(gallery_lib.Options(**GALLERY_FLAGS.flag_values_dict()))

    return _run("humerus-gallery", main, gallery, GALLERY_FLAGS, ("scored",), "run again", argv)


def _run(
    name: str,
    main: Callable[[list[str]], object],
    command: Callable,
    values: flags.FlagValues,
    required: Sequence[str],
    when_stopped: str,
    argv: Sequence[str] | None,
) -> int:
    """Parses the flags, runs `main` on the words that are none of them, prints what it tells, and returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h", "--helpfull", "--helpshort"} & set(argv):
        all_commands = vitals.FLAGS.module_help(vitals.__name__)
        print(f"{inspect.cleandoc(command.__doc__ or '')}\n{values.module_help(__name__)}\n\n{all_commands}")
        return EXIT_DONE
    stopped = _stop_on_signals()
    try:
        argv = vitals.start(argv)
        _quieten()
        # What an earlier call in the same process was told must not stay.
        values.unparse_flags()
        _, *others = values(argv, known_only=True)
        missing = [f"--{flag}" for flag in required if not values[flag].value]
        if missing:
            raise ConfigError(f"{' and '.join(missing)} must be given; see {name} --help")
        print(main(others))
    except (ConfigError, ArtifactError, flags.Error) as error:
        return _complain(name, error, EXIT_CONFIG)
    except DataError as error:
        return _complain(name, error, EXIT_DATA)
    except (Exception, KeyboardInterrupt) as error:
        # A runner may turn the interruption into an error of its own.
        if stopped.is_set() or isinstance(error, KeyboardInterrupt):
            return _complain(name, f"stopped; {when_stopped}", EXIT_STOPPED)
        if isinstance(error, (OSError, RunnerError)):
            return _complain(name, error, EXIT_FAILURE)
        raise
    return EXIT_DONE


def _stop_on_signals() -> threading.Event:
    """Makes SIGTERM, with which schedulers end what they started, as gentle as Ctrl-C; the event tells that one of them came."""
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        stopped.set()
        # What the interruption breaks from here on is no news.
        python_logging.disable()
        raise KeyboardInterrupt

    # Elsewhere than in the main thread (a notebook's, a test's), signals are somebody else's.
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
    return stopped


def _quieten() -> None:
    """Keeps off the terminal what libraries say at their start; an environment variable of the user's wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # absl's own flags, which it wants parsed before it logs.
    flags.FLAGS(["humerus-score"])
    logging.use_absl_handler()
    # absl hands its own level to the root logger, and with it to every library.
    # What a worker in this process fails with, it logs and raises: once is enough.
    levels = {None: "ERROR", "apache_beam": "ERROR", "apache_beam.runners.common": "CRITICAL", "absl": "INFO"}
    for name, level in levels.items():
        python_logging.getLogger(name).setLevel(level)
    vitals.format_log()


def _complain(name: str, message: object, code: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return code
