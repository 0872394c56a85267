"""Check Beam's options: which runner runs the pipeline, and where its workers are."""

import contextlib
import dataclasses
import difflib
import enum
import io
import pathlib

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PipelineOptionsT,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.runner import create_runner

from batch_inference.options import Options
from batch_inference.storage import filesystem
from trainer.errors import ConfigError

EMBEDDED = "FnApiRunner"
"""Beam's runner inside this process, the default."""
RUNNERS = (
    EMBEDDED,
    "PrismRunner",
    "FlinkRunner",
    "DataflowRunner",
    "PortableRunner",
)
"""The runners that scoring is tested with."""
_REFUSED = {
    "dask": "it loses rows (Beam 2.77)",
    "spark": "scoring is not tested with it",
}
"""Runners of Beam by name, and why scoring refuses them."""
_FLINK_OPTIONS = frozenset(
    {"number_of_execution_retries", "execution_retry_delay", "flink_conf_dir"}
)
"""Options of Flink's job server, useful for scoring, that Beam in Python does not know."""
_RETURNS_EARLY = ("no_wait_until_finish", "dry_run", "template_location")
"""Options with which Beam returns before the job is done."""
_JOB_SERVER_SECONDS = 20
_MOST_WORKERS = 1024


class Workers(enum.Enum):
    """Says where a runner's workers are, seen from the process that starts the run."""

    THREADS = "in this process"
    PROCESSES = "on this machine, with the packages of this process"
    ELSEWHERE = "on machines of which nothing is known here"


class _Options(PipelineOptions):
    """Caches the views of Beam's options, which Beam would parse anew hundreds of times."""

    def view_as(self, cls: type[PipelineOptionsT]) -> PipelineOptionsT:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def parse_beam_options(arguments: tuple[str, ...]) -> PipelineOptions:
    """Return Beam's options from the words of a command line; the runner is embedded by default.

    Raises:
      ConfigError: an option is unknown or its value wrong, the runner is none of `RUNNERS`, or it
        lacks an option that it needs.
    """
    if not arguments:
        return _Options([], runner=EMBEDDED)
    known = PipelineOptions([]).get_all_options()
    usage = io.StringIO()
    try:
        # On a wrong value Beam prints three screens of usage; only the last line says why.
        with contextlib.redirect_stderr(usage):
            given = PipelineOptions(list(arguments)).get_all_options(
                drop_default=True, retain_unknown_options=True
            )
    except SystemExit as error:
        reason = usage.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"Apache Beam refuses its options: {reason}") from error
    runner = _resolve_runner(given.get("runner") or EMBEDDED)
    of_server = _list_server_options(runner, given.get("job_endpoint"))
    _check_known(arguments, set(given), set(known) | of_server)
    # Checked on a copy, as Beam changes the options that it validates.
    _check_complete(PipelineOptions(list(arguments), runner=runner), runner)
    options = _Options(list(arguments), runner=runner)
    # Beam takes any number: a negative one ends in an error of its own much later.
    if not 0 <= (workers := options.view_as(DirectOptions).direct_num_workers) <= _MOST_WORKERS:
        raise ConfigError(
            f"--direct_num_workers={workers}: expected a whole number from 0 to {_MOST_WORKERS}"
        )
    setup = options.view_as(SetupOptions)
    if setup.setup_file:
        # Beam changes into the folder of this path, and fails where the path names none.
        setup.setup_file = str(pathlib.Path(setup.setup_file).resolve())
    return options


def _check_known(arguments: tuple[str, ...], given: set[str], known: set[str]) -> None:
    """Raise `ConfigError` for a word that is not an option, and for an option of an unknown name.

    Args:
      arguments: the words of the command line.
      given: names of the options that Beam found among them.
      known: names of the options of Beam and of the runner.
    """
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(
            f"unexpected argument {arguments[0]!r}; options have the form --name=value, "
            "see humerus-score --help"
        )
    unknown = given - known
    names = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    # Beam takes --dry-run for dry_run and ignores it: the run would begin.
    wrong = [name for name in names if "-" in name[2:] or name[2:] in unknown]
    if wrong or unknown:
        name = wrong[0] if wrong else f"--{min(unknown)}"
        ours = [field.name for field in dataclasses.fields(Options)]
        candidates = [*ours, "dry_run", "json", *known]
        similar = difflib.get_close_matches(name[2:].replace("-", "_"), candidates, 1)
        hint = f" (did you mean --{similar[0]}?)" if similar else ""
        raise ConfigError(
            f"unknown option {name}{hint}; neither humerus-score --help nor "
            f"Apache Beam {beam.__version__} lists it"
        )


def _resolve_runner(name: str) -> str:
    """Return the runner that a name means: in either case, with or without `Runner`, or a path.

    Raises:
      ConfigError: no runner has that name, or scoring refuses it.
    """
    plain = name.rpartition(".")[2].lower().removesuffix("runner")
    if plain in _REFUSED:
        raise ConfigError(
            f"--runner={plain.capitalize()}Runner is refused: {_REFUSED[plain]}; "
            f"use {', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}"
        )
    # Beam's DirectRunner would download Prism, and fall back to the embedded runner.
    aliases = {runner.lower().removesuffix("runner"): runner for runner in RUNNERS} | {
        "direct": EMBEDDED
    }
    if plain not in aliases:
        raise ConfigError(f"unknown runner {name}; expected one of {', '.join(RUNNERS)}")
    return aliases[plain]


def _list_server_options(runner: str, job_endpoint: str | None) -> frozenset[str]:
    """Return the names of the options of a runner's job server, which is asked where it runs.

    Raises:
      ConfigError: no job server answers.
    """
    if not job_endpoint or job_endpoint == "embed":
        return _FLINK_OPTIONS if runner == "FlinkRunner" else frozenset()
    with grpc.insecure_channel(job_endpoint) as channel:
        server = beam_job_api_pb2_grpc.JobServiceStub(channel)
        try:
            described = server.DescribePipelineOptions(
                beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=_JOB_SERVER_SECONDS
            )
        except grpc.RpcError as error:
            raise ConfigError(
                f"no job server answers at --job_endpoint={job_endpoint} "
                f"({error.code().name}); start it first"
            ) from error
    return frozenset(option.name for option in described.options)


def _check_complete(options: PipelineOptions, runner: str) -> None:
    """Raise `ConfigError` for options that Beam, or its workers minutes later, would refuse."""
    early = [
        name for name in _RETURNS_EARLY if options.get_all_options(drop_default=True).get(name)
    ]
    if early:
        raise ConfigError(
            f"--{early[0]} is not for scoring, which waits for the end of the run to complete its "
            "output; omit it"
        )
    setup = options.view_as(SetupOptions)
    if setup.setup_file and not pathlib.Path(setup.setup_file).is_file():
        raise ConfigError(
            f"--setup_file={setup.setup_file} is not a file; "
            "expected the path of this project's setup.py"
        )
    if runner == "PortableRunner" and not options.view_as(PortableOptions).job_endpoint:
        raise ConfigError(
            "--runner=PortableRunner needs --job_endpoint=HOST:PORT, the address of a job server"
        )
    image = options.view_as(WorkerOptions).sdk_container_image
    if runner == "DataflowRunner" and not (setup.setup_file or image or setup.extra_packages):
        raise ConfigError(
            "--runner=DataflowRunner needs --setup_file=./setup.py or --sdk_container_image=IMAGE: "
            "without them its workers lack this program"
        )
    errors = PipelineOptionsValidator(options, create_runner(runner)).validate()
    if errors:
        raise ConfigError(" ".join(f"Apache Beam refuses its options: {errors[0]}".split()))


def check_within_reach(options: PipelineOptions, **uris: str) -> None:
    """Raise `ConfigError` where one of `uris`, by flag, is local and the workers are Dataflow's."""
    if options.view_as(StandardOptions).runner != "DataflowRunner":
        return
    for flag, uri in uris.items():
        if not filesystem.is_remote(uri):
            raise ConfigError(
                f"--{flag}={uri} lies on this machine, where no worker of Dataflow can reach it; "
                "expected gs://..."
            )


def is_embedded(options: PipelineOptions) -> bool:
    """Return whether the embedded runner is to run the pipeline."""
    return options.view_as(StandardOptions).runner == EMBEDDED


def locate_workers(options: PipelineOptions) -> Workers:
    """Return where the workers of a runner are."""
    runner = options.view_as(StandardOptions).runner
    if is_embedded(options):
        separate = options.view_as(DirectOptions).direct_running_mode == "multi_processing"
        return Workers.PROCESSES if separate else Workers.THREADS
    portable = options.view_as(PortableOptions)
    # The defaults of these runners.
    loopback = {
        "PrismRunner": True,
        "FlinkRunner": options.view_as(FlinkRunnerOptions).flink_master in ("[local]", "[auto]"),
    }.get(runner, False)
    environment = portable.environment_type or ("LOOPBACK" if loopback else "DOCKER")
    return Workers.THREADS if environment.upper() == "LOOPBACK" else Workers.ELSEWHERE
