"""The job as Beam sends it to Dataflow, and that it runs from the staged sources alone."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.batch_inference.conftest import json_rows
from tests.support import bucket_server, dataflow_double

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "from batch_inference.main import score; raise SystemExit(score())"
IMAGE = "europe-west4-docker.pkg.dev/project/repository/humerus:1"
FLAGS = (
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=europe-west4",
    "--temp_location=gs://bucket/tmp",
    "--job_name=humerus-1",
    "--machine_type=n1-standard-8",
    "--max_num_workers=20",
    "--dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver",
    "--experiments=no_use_multiple_sdk_containers",
)


@pytest.fixture(scope="module")
def buckets(model, radiographs, tmp_path_factory):
    with bucket_server.running(tmp_path_factory.mktemp("keys")) as server:
        server.make_bucket("bucket")
        for top, root in (("model", model), ("in", radiographs)):
            for path in root.rglob("*"):
                if path.is_file():
                    server.put("bucket", f"{top}/{path.relative_to(root)}", path.read_bytes())
        yield server


@pytest.fixture
def dataflow(buckets, tmp_path):
    folder = tmp_path / "worker"
    folder.mkdir()
    with dataflow_double.running(buckets, folder) as double:
        yield double


def score(buckets, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags],
        cwd=ROOT,
        env=os.environ | buckets.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_job_is_asked_for_as_told_and_can_be_done_from_what_was_staged(
    buckets, dataflow, model, radiographs, tmp_path
):
    places = [
        "--input=gs://bucket/in",
        "--model=gs://bucket/model",
        "--output=gs://bucket/out",
        "--cam_format=png",
    ]
    done = score(
        buckets,
        *places,
        *FLAGS,
        f"--dataflow_endpoint={dataflow.url}",
        "--setup_file=setup.py",
        "--id_salt=secret-of-ours",
    )
    assert done.returncode == 0, done.stderr + dataflow.said

    (job,) = dataflow.requests
    (workers,) = job["environment"]["workerPools"]
    assert job["name"] == "humerus-1"
    assert workers["machineType"] == "n1-standard-8"
    assert workers["autoscalingSettings"]["maxNumWorkers"] == 20
    assert job["environment"]["serviceOptions"] == [
        "worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver",
    ]
    assert "no_use_multiple_sdk_containers" in job["environment"]["experiments"]
    assert {package["name"] for package in workers["packages"]} >= {"workflow.tar.gz"}
    assert "secret-of-ours" not in str(job)

    assert f"program at {tmp_path / 'worker' / 'humerus-'}" in dataflow.said
    for name, content in buckets.objects("bucket", "out/").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = json_rows(tmp_path / "out", "predictions")
    here = score(
        buckets,
        f"--input={radiographs}",
        f"--model={model}",
        f"--output={tmp_path / 'here'}",
        "--engine=tensorflow",
    )
    assert here.returncode == 0, here.stderr
    assert {row["uri"].removeprefix("gs://bucket/in/"): row["probability"] for row in rows} == {
        row["uri"].removeprefix(f"{radiographs}/"): row["probability"]
        for row in json_rows(tmp_path / "here", "predictions")
    }
    assert len(rows) == len(list((tmp_path / "out" / "cams").rglob("*.png"))) == 14


@pytest.mark.slow
def test_a_container_of_ones_own_is_asked_for_and_nothing_is_staged_for_it(buckets, dataflow):
    places = [
        "--input=gs://bucket/in",
        "--model=gs://bucket/model",
        "--output=gs://bucket/by-container",
    ]
    failed = score(
        buckets,
        *places,
        *FLAGS,
        f"--dataflow_endpoint={dataflow.url}",
        f"--sdk_container_image={IMAGE}",
    )
    (job,) = dataflow.requests
    (workers,) = job["environment"]["workerPools"]
    assert workers["workerHarnessContainerImage"] == IMAGE
    assert [image["containerImage"] for image in workers["sdkHarnessContainerImages"]] == [IMAGE]
    assert "workflow.tar.gz" not in {package["name"] for package in workers["packages"]}
    # The double has no containers.
    assert failed.returncode == 1
    (sentence,) = [
        line for line in failed.stderr.splitlines() if line.startswith("humerus-score: ")
    ]
    assert "the runner failed (Dataflow pipeline failed." in sentence and dataflow.said in sentence
