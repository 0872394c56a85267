"""Which runner runs, with which options and workers, and that repeated bundles change nothing."""

import concurrent.futures
import pathlib

import grpc
import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from batch_inference import pipeline, runners
from batch_inference.runners import Workers
from tests.batch_inference.conftest import json_rows
from trainer.errors import ConfigError

DATAFLOW = (
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=europe-west4",
    "--temp_location=gs://some-bucket/tmp",
)
SETUP = str(pathlib.Path(__file__).resolve().parents[2] / "setup.py")


@pytest.fixture(autouse=True)
def _no_look_at_buckets(monkeypatch):
    """Stop Beam from asking Google how long the temporary bucket keeps deleted objects."""
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)


@pytest.mark.parametrize(
    ("words", "runner", "workers"),
    [
        ("", "FnApiRunner", Workers.THREADS),
        ("--runner=DirectRunner", "FnApiRunner", Workers.THREADS),
        (
            "--runner=direct --direct_running_mode=multi_processing",
            "FnApiRunner",
            Workers.PROCESSES,
        ),
        ("--runner=PrismRunner", "PrismRunner", Workers.THREADS),
        ("--runner=prism --environment_type=DOCKER", "PrismRunner", Workers.ELSEWHERE),
        (
            "--runner=apache_beam.runners.portability.flink_runner.FlinkRunner",
            "FlinkRunner",
            Workers.THREADS,
        ),
        ("--runner=FlinkRunner --flink_master=flink:8081", "FlinkRunner", Workers.ELSEWHERE),
        (
            "--runner=FlinkRunner --flink_master=flink:8081 --environment_type=LOOPBACK",
            "FlinkRunner",
            Workers.THREADS,
        ),
        ("--runner=PortableRunner --job_endpoint=embed", "PortableRunner", Workers.ELSEWHERE),
    ],
)
def test_where_the_workers_of_a_runner_are(words, runner, workers):
    options = runners.parse_beam_options(tuple(words.split()))
    assert options.view_as(StandardOptions).runner == runner
    assert runners.locate_workers(options) is workers


def test_dataflow_is_elsewhere_and_cannot_reach_this_machine():
    options = runners.parse_beam_options((*DATAFLOW, f"--setup_file={SETUP}"))
    assert runners.locate_workers(options) is Workers.ELSEWHERE
    runners.check_within_reach(options, input="gs://some-bucket/in", output="gs://some-bucket/out")
    with pytest.raises(ConfigError, match=r"--output=/scored lies on this machine"):
        runners.check_within_reach(options, input="gs://some-bucket/in", output="/scored")
    runners.check_within_reach(runners.parse_beam_options(()), input="/radiographs")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--runner=Hamster",), "unknown runner Hamster; expected one of FnApiRunner, PrismRunner"),
        (
            ("--runner=apache_beam.runners.dask.dask_runner.DaskRunner",),
            "--runner=DaskRunner is refused: it loses rows (Beam 2.77); use FnApiRunner, "
            "PrismRunner, FlinkRunner, DataflowRunner or PortableRunner",
        ),
        (
            ("--runner=SparkRunner", "--spark_master_url=spark://host:7077"),
            "--runner=SparkRunner is refused: scoring is not tested with it; use FnApiRunner, ",
        ),
        (("--runner=spark",), "--runner=SparkRunner is refused"),
        (("--number_of_execution_retries=3",), "unknown option --number_of_execution_retries"),
        (("--runner=PortableRunner",), "needs --job_endpoint=HOST:PORT"),
        (
            ("--runner=PortableRunner", "--job_endpoint=localhost:1"),
            "no job server answers at --job_endpoint=localhost:1",
        ),
        (DATAFLOW, "needs --setup_file=./setup.py or --sdk_container_image=IMAGE"),
        (
            (*DATAFLOW, "--setup_file=nowhere/setup.py"),
            "nowhere/setup.py is not a file",
        ),
        (
            (*DATAFLOW, f"--setup_file={SETUP}", "--no_wait_until_finish"),
            "--no_wait_until_finish is not for scoring",
        ),
        (
            (*DATAFLOW, f"--setup_file={SETUP}", "--template_location=gs://b/t"),
            "--template_location is not for scoring",
        ),
        (
            (*DATAFLOW[:1], *DATAFLOW[2:], f"--setup_file={SETUP}"),
            "Missing required option: project",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(words, sentence, monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.setenv("PATH", "")  # No `gcloud` to ask for a project.
    with pytest.raises(ConfigError) as caught:
        runners.parse_beam_options(words)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


class _JobServer(beam_job_api_pb2_grpc.JobServiceServicer):
    """Knows one option."""

    def DescribePipelineOptions(self, request, context):
        option = beam_job_api_pb2.PipelineOptionDescriptor(name="object_reuse")
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=[option])


def test_a_job_server_says_itself_what_options_it_has():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(_JobServer(), server)
    endpoint = f"--job_endpoint=localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        runners.parse_beam_options(("--runner=PortableRunner", endpoint, "--object_reuse=true"))
        with pytest.raises(ConfigError, match="unknown option --inptu"):
            runners.parse_beam_options(("--runner=PortableRunner", endpoint, "--inptu=x"))
    finally:
        server.stop(None)


def test_flinks_own_options_reach_the_job_server_that_beam_starts():
    options = runners.parse_beam_options(
        ("--runner=FlinkRunner", "--number_of_execution_retries=3", "--flink_version=1.19")
    )
    assert options.view_as(FlinkRunnerOptions).flink_version == "1.19"
    assert (
        options.get_all_options(retain_unknown_options=True)["number_of_execution_retries"] == "3"
    )


def _score(radiographs, model, output, *beam) -> dict[str, list]:
    """Run the scorer; return the rows of each kind, and the pictures."""
    pipeline.run(
        pipeline.Options(str(radiographs), str(model), str(output), batch_size=4, beam=beam)
    )
    pictures = {
        str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.jpg"))
    }
    return {name: json_rows(output, name) for name in ("predictions", "studies", "rejections")} | {
        "pictures": list(pictures.items())
    }


def test_a_bundle_that_comes_again_changes_nothing(model, radiographs, tmp_path):
    once = _score(radiographs, model, tmp_path / "once")
    thrice = _score(radiographs, model, tmp_path / "thrice", "--direct_runner_bundle_repeat=2")
    assert once == thrice
    drawn = [name for name, _ in once["pictures"] if name.startswith("cams/")]
    assert len(once["predictions"]) == len(drawn) == 14


@pytest.mark.slow
def test_workers_in_processes_of_their_own_give_the_same_rows(model, radiographs, tmp_path):
    here = _score(radiographs, model, tmp_path / "here")
    there = _score(
        radiographs,
        model,
        tmp_path / "there",
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    )
    assert here == there
