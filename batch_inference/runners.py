"""Which engine runs the pipeline, with which options, and where its workers are."""

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
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
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
RUNNERS = (
    EMBEDDED,
    "PrismRunner",
    "FlinkRunner",
    "SparkRunner",
    "DataflowRunner",
    "PortableRunner",
)
_FLINK_OPTIONS = frozenset(
    {"number_of_execution_retries", "execution_retry_delay", "flink_conf_dir"}
)
"""What the job server of Flink knows and Beam's Python half does not, of what scoring has a use for."""
_NOT_TO_THE_END = ("no_wait_until_finish", "dry_run", "template_location")
"""Options of Beam with which it comes back before the job is done."""
_JOB_SERVER_SECONDS = 20


class Workers(enum.Enum):
    """Where the workers of a runner are, seen from the process that starts the run."""

    THREADS = "in this process"
    PROCESSES = "on this machine, with the packages of this process"
    ELSEWHERE = "on machines of which nothing is known here"


def parse_beam_options(arguments: tuple[str, ...]) -> PipelineOptions:
    """Options of Beam from the words of a command line; the embedded runner unless another is named.

    Raises:
      ConfigError: an option that nobody knows, a wrong value, a runner that is none of `RUNNERS`, or options that a runner lacks.
    """
    known = PipelineOptions([]).get_all_options()
    said = io.StringIO()
    try:
        # On a wrong value Beam prints three screens of usage; the last line of it is what counts.
        with contextlib.redirect_stderr(said):
            given = PipelineOptions(list(arguments)).get_all_options(
                drop_default=True, retain_unknown_options=True
            )
    except SystemExit as error:
        raise ConfigError(
            f"Apache Beam refuses its options: {said.getvalue().strip().rpartition('error: ')[2]}"
        ) from error
    runner = _runner(given.get("runner") or EMBEDDED)
    _check_known(
        arguments, set(given), set(known) | _further_options(runner, given.get("job_endpoint"))
    )
    # Beam writes into what it checks.
    _check_complete(PipelineOptions(list(arguments), runner=runner), runner)
    options = PipelineOptions(list(arguments), runner=runner)
    setup = options.view_as(SetupOptions)
    if setup.setup_file:
        # Beam goes to the folder that is written there, and fails where none is.
        setup.setup_file = str(pathlib.Path(setup.setup_file).resolve())
    return options


def _check_known(arguments: tuple[str, ...], given: set[str], known: set[str]) -> None:
    """Raises `ConfigError` for a word that is no option, and for an option that nobody knows by the name that was written."""
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(
            f"unexpected argument {arguments[0]!r}; options have the form --name=value, see humerus-score --help"
        )
    unknown = given - known
    names = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    # Beam reads --dry-run as dry_run, and does nothing with it: the run would begin.
    wrong = [name for name in names if "-" in name[2:] or name[2:] in unknown]
    if wrong or unknown:
        name = wrong[0] if wrong else f"--{min(unknown)}"
        all_there_are = [field.name for field in dataclasses.fields(Options)] + [
            "dry_run",
            "json",
            *known,
        ]
        like = difflib.get_close_matches(name[2:].replace("-", "_"), all_there_are, 1)
        hint = f" (did you mean --{like[0]}?)" if like else ""
        raise ConfigError(
            f"unknown option {name}{hint}; neither humerus-score --help nor Apache Beam {beam.__version__} names it"
        )


def _runner(name: str) -> str:
    """The runner of that name; letters of either case, `flink` and the whole path of the class will do, as for Beam."""
    plain = name.rpartition(".")[2].lower().removesuffix("runner")
    if plain == "dask":
        raise ConfigError(
            "--runner=DaskRunner loses rows (Beam 2.77); use the default, Flink, Prism or Dataflow"
        )
    # Beam's DirectRunner would download Prism first, and is the embedded runner where it can't.
    aliases = {runner.lower().removesuffix("runner"): runner for runner in RUNNERS} | {
        "direct": EMBEDDED
    }
    if plain not in aliases:
        raise ConfigError(f"unknown runner {name}; expected one of {', '.join(RUNNERS)}")
    return aliases[plain]


def _further_options(runner: str, job_endpoint: str | None) -> frozenset[str]:
    """Options of the runner's job server: what it says itself where it runs already."""
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
                f"no job server answers at --job_endpoint={job_endpoint} ({error.code().name}); start it first"
            ) from error
    return frozenset(option.name for option in described.options)


def _check_complete(options: PipelineOptions, runner: str) -> None:
    """Raises `ConfigError` for what Beam, or the workers after minutes, would refuse."""
    unfinished = [
        name for name in _NOT_TO_THE_END if options.get_all_options(drop_default=True).get(name)
    ]
    if unfinished:
        raise ConfigError(
            f"--{unfinished[0]} is not for scoring, which waits for the end of the run to complete its output"
        )
    setup = options.view_as(SetupOptions)
    if setup.setup_file and not pathlib.Path(setup.setup_file).is_file():
        raise ConfigError(
            f"--setup_file={setup.setup_file} is no file; expected the path of this project's setup.py"
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
    """Raises `ConfigError` where one of `uris` (by flag) lies on this machine and the workers surely do not."""
    if options.view_as(StandardOptions).runner != "DataflowRunner":
        return
    for flag, uri in uris.items():
        if not filesystem.is_remote(uri):
            raise ConfigError(
                f"--{flag}={uri} lies on this machine, where no worker of Dataflow can reach it; expected gs://..."
            )


def is_embedded(options: PipelineOptions) -> bool:
    """Whether it all happens under this process."""
    return options.view_as(StandardOptions).runner == EMBEDDED


def locate_workers(options: PipelineOptions) -> Workers:
    """Where the workers are."""
    runner = options.view_as(StandardOptions).runner
    if is_embedded(options):
        separate = options.view_as(DirectOptions).direct_running_mode == "multi_processing"
        return Workers.PROCESSES if separate else Workers.THREADS
    portable = options.view_as(PortableOptions)
    # What these runners take when nothing is said.
    loopback = {
        "PrismRunner": True,
        "FlinkRunner": options.view_as(FlinkRunnerOptions).flink_master in ("[local]", "[auto]"),
        "SparkRunner": options.view_as(SparkRunnerOptions).spark_master_url.startswith("local"),
    }.get(runner, False)
    environment = portable.environment_type or ("LOOPBACK" if loopback else "DOCKER")
    return Workers.THREADS if environment.upper() == "LOOPBACK" else Workers.ELSEWHERE
