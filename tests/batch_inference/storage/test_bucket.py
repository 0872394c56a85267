"""These tests score from a bucket to a bucket: the results equal those on disk, despite faults."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import cv2
import pydicom
import pytest
from apache_beam.io.gcp import gcsio_retry
from google.cloud.storage.retry import DEFAULT_RETRY
from pydicom.data import get_testdata_file

from batch_inference import main, pipeline, preflight
from batch_inference.inputs import sources
from batch_inference.outputs import journal, output_folder, run_record
from batch_inference.scoring import model_copy
from batch_inference.storage import filesystem, gcs, storage_errors
from tests.batch_inference.conftest import json_rows, picture
from tests.support import bucket_server
from tests.support.commands import SHORT_LEASE
from trainer.artifact import ArtifactError
from trainer.errors import EXIT_CONFIG, EXIT_DONE, ConfigError
from trainer.program import bucket_lease, run_lock

ROOT = pathlib.Path(__file__).resolve().parents[3]
IMPATIENT = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.1)


@pytest.fixture(autouse=True)
def _connect(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # The real delays are seconds. Google's library tests that they grow.
    monkeypatch.setattr(gcs, "DEFAULT_RETRY", IMPATIENT)
    monkeypatch.setattr(gcsio_retry, "DEFAULT_RETRY_WITH_THROTTLING_COUNTER", IMPATIENT)
    gcs.client.cache_clear()
    yield
    server.faults.rate, server.faults.queued, server.faults.down = 0.0, [], None
    gcs.client.cache_clear()


_buckets = iter(range(1000))


@pytest.fixture
def bucket(server) -> str:
    """Return the name of a bucket that only this test uses."""
    name = f"bucket-{next(_buckets)}"
    server.make_bucket(name)
    return name


@pytest.fixture
def filled(server, bucket, model, radiographs) -> str:
    """Return a bucket with the model in m/, and radiographs and a text file in in/."""
    for top, root in (("m", model), ("in", radiographs)):
        for path in root.rglob("*"):
            if path.is_file():
                server.put(bucket, f"{top}/{path.relative_to(root)}", path.read_bytes())
    server.put(bucket, "in/notes.txt", b"no image")
    return f"gs://{bucket}"


def download(server, filled: str, prefix: str, to: pathlib.Path) -> pathlib.Path:
    for name, contents in server.objects(filled.removeprefix("gs://"), prefix).items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return to / prefix


def score(source, model, output, **options):
    return pipeline.run(pipeline.Options(str(source), str(model), str(output), **options))


@pytest.fixture(scope="module")
def on_disk(model, radiographs, tmp_path_factory) -> dict:
    """Return the results of scoring the same files on disk; see `read_results`."""
    output = tmp_path_factory.mktemp("disk") / "out"
    score(radiographs, model, output, cam_format="png")
    return read_results(output, str(radiographs))


def read_results(output: pathlib.Path, root: str) -> dict:
    """Return rows and pictures, with paths relative to the input, so that places compare."""
    rows = [
        row | {"uri": row["uri"].removeprefix(f"{root}/")}
        for row in json_rows(output, "predictions")
    ]
    return {
        "rows": rows,
        "pictures": {path.name: path.read_bytes() for path in (output / "cams").rglob("*.png")},
    }


@pytest.mark.parametrize("rate", [0.0, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_bucket_gives_what_the_disk_gives_also_when_a_fifth_of_all_requests_fails(
    server, filled, on_disk, tmp_path, rate
):
    server.faults.rate, server.faults.requests = rate, 0
    server.faults.drawn.clear()
    summary = score(f"{filled}/in", f"{filled}/m", f"{filled}/out", cam_format="png")
    failed, asked = server.faults.drawn.total(), server.faults.requests
    server.faults.rate = 0.0
    output = download(server, filled, "out", tmp_path)
    assert read_results(output, f"{filled}/in") == on_disk
    assert summary.content["scored"] == len(on_disk["rows"]) == 14
    assert [(row["uri"], row["reason"]) for row in json_rows(output, "rejections")] == [
        (f"{filled}/in/notes.txt", "not_an_image")
    ]
    assert json.loads((output / "run.json").read_text())["state"] == "finished"
    assert not list(output.glob("beam-temp*"))
    assert failed == 0 if rate == 0 else failed > 0.1 * asked


@pytest.mark.slow
def test_a_run_goes_on_in_a_bucket(server, filled, on_disk, tmp_path, monkeypatch):
    original, parts = filesystem.write, []

    def write(uri, *content):
        if f"/{journal.JOURNAL}/" in uri:
            if len(parts) == 3:
                raise RuntimeError("pulled the plug")
            parts.append(uri)
        original(uri, *content)

    with pytest.raises(RuntimeError, match="pulled the plug"), monkeypatch.context() as broken:
        broken.setattr(journal, "ROWS_PER_PART", 2)
        broken.setattr(filesystem, "write", write)
        score(f"{filled}/in", f"{filled}/m", f"{filled}/out", cam_format="png", batch_size=4)
    with pytest.raises(ConfigError, match="--resume"):
        score(f"{filled}/in", f"{filled}/m", f"{filled}/out", cam_format="png")
    score(f"{filled}/in", f"{filled}/m", f"{filled}/out", cam_format="png", resume=True)
    assert read_results(download(server, filled, "out", tmp_path), f"{filled}/in") == on_disk
    score(f"{filled}/in/patient00000", f"{filled}/m", f"{filled}/out", cam="none", overwrite=True)
    left = server.objects(filled.removeprefix("gs://"), "out/")
    assert (
        not [name for name in left if "/cams/" in name]
        and len([name for name in left if "/journal/" in name]) == 1
    )


def test_results_in_dicom_lie_in_the_bucket_too(server, bucket, model, tmp_path):
    source = pathlib.Path(get_testdata_file("RG1_UNCI.dcm", download=False))
    server.put(bucket, "in/radiograph.dcm", source.read_bytes())
    server.faults.rate = 0.2
    score(f"gs://{bucket}/in", model, f"gs://{bucket}/out", dicom=("sc", "sr"), cam_format="png")
    server.faults.rate = 0.0
    output = download(server, f"gs://{bucket}", "out", tmp_path)
    (row,) = json_rows(output, "predictions")
    assert row["dicom"] == [f"dicom_results/radiograph.dcm.{kind}.dcm" for kind in ("sc", "sr")]
    capture, report = (pydicom.dcmread(output / path) for path in row["dicom"])
    assert capture.StudyInstanceUID == report.StudyInstanceUID
    assert (capture.pixel_array[..., ::-1] == cv2.imread(str(output / row["cam"]))).all()


def test_of_two_runs_at_once_one_writes_and_the_other_is_refused(server, filled, on_disk, tmp_path):
    names = [f"--{name}={filled}/{place}" for name, place in [("input", "in"), ("model", "m")]]
    command = [sys.executable, "-c", SHORT_LEASE + "from batch_inference.main import score\n"]
    command[-1] += "raise SystemExit(score())"
    flags = [*names, f"--output={filled}/out", "--cam_format=png"]
    server.delay = 0.02  # Both have begun before either has ended.
    runs = [
        subprocess.Popen([*command, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [run.communicate(timeout=300)[1] for run in runs]
    server.delay = 0.0
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [EXIT_DONE, EXIT_CONFIG], said
    refused, winner = codes.index(EXIT_CONFIG), runs[codes.index(EXIT_DONE)]
    assert f"{filled}/out is being written by process {winner.pid} on " in said[refused]
    assert read_results(download(server, filled, "out", tmp_path), f"{filled}/in") == on_disk
    assert not server.objects(filled.removeprefix("gs://"), f"out/{run_lock.LOCK_FILE}")


@pytest.mark.parametrize("kind", bucket_server.Faults.KINDS)
def test_each_fault_is_waited_out(server, bucket, kind):
    uri, contents = f"gs://{bucket}/a b/ü?#.bin", os.urandom(300_000)
    server.faults.queued = [kind] * 3
    filesystem.write(uri, contents)
    assert not server.faults.queued or kind == "slow"
    assert server.objects(bucket) == {"a b/ü?#.bin": contents}
    server.faults.queued = [kind] * 3
    assert filesystem.read(uri) == contents
    server.faults.queued = [kind] * 3
    assert filesystem.names(f"gs://{bucket}") == ["a b"]
    server.faults.queued = [kind] * 3
    filesystem.delete(f"gs://{bucket}/a b")
    server.faults.queued = []
    assert server.objects(bucket) == {}


def test_what_does_not_pass_is_one_sentence_and_leaves_what_was_there(server, bucket, monkeypatch):
    monkeypatch.setattr(gcs, "DEFAULT_RETRY", IMPATIENT.with_timeout(0.5))
    uri = f"gs://{bucket}/secret name.bin"
    filesystem.write(uri, b"former")
    for kind in ("503", "cut upload"):
        server.faults.queued = [kind] * 1000
        with pytest.raises(storage_errors.StorageError) as caught:
            filesystem.write(uri, b"new" * 1000)
        assert "secret name" not in str(caught.value) and "\n" not in str(caught.value)
    server.faults.queued = []
    assert filesystem.read(uri) == b"former"
    with pytest.raises(storage_errors.StorageError, match=r"^the storage answers 404 Not Found$"):
        filesystem.read(f"gs://{bucket}/nothing here")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"input": "gs://no-such-bucket/in"},
            "--input=gs://no-such-bucket/in cannot be listed (the storage answers 404 Not Found)",
        ),
        (
            {"model": "gs://no-such-bucket/m"},
            "m cannot be copied here (the storage answers 404 Not Found); "
            "name the `artifact` folder",
        ),
        (
            {"model": "{filled}/in"},
            "in cannot be copied here (the storage answers 404 Not Found); "
            "name the `artifact` folder",
        ),
        (
            {"output": "gs://no-such-bucket/out"},
            "out cannot be listed (the storage answers 404 Not Found); check the address",
        ),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry_run",)])
def test_a_wrong_address_is_one_sentence_too(filled, capsys, wrong, sentence, more):
    places = {"input": f"{filled}/in", "model": f"{filled}/m", "output": f"{filled}/out"} | wrong
    arguments = [f"--{name}={place.format(filled=filled)}" for name, place in places.items()]
    assert main.score(["humerus-score", *arguments, *more]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.err.count("\n") == 1 and not printed.out


@pytest.mark.parametrize(
    ("down", "what"),
    [
        ("", "m cannot be copied here"),
        ("/o/m/variables", "m cannot be copied here"),
        # Beam tries to read a file for more than a minute.
        pytest.param(
            "/o/in/list.csv",
            "the manifest {bucket}/in/list.csv cannot be read",
            marks=pytest.mark.slow,
        ),
        ("prefix=in", "--input={bucket}/in cannot be listed"),
        ("prefix=out", "--output={bucket}/out cannot be listed"),
        ("/o/out/run.json", "--output={bucket}/out: its run.json cannot be read"),
        ("uploadType", "{bucket}/out cannot be written"),
    ],
)
def test_an_outage_at_the_start_is_to_be_tried_again(
    server, filled, capsys, monkeypatch, tmp_path, down, what
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module, name in (
        (gcs, "DEFAULT_RETRY"),
        (bucket_lease, "DEFAULT_RETRY"),
        (gcsio_retry, "DEFAULT_RETRY_WITH_THROTTLING_COUNTER"),
    ):
        monkeypatch.setattr(module, name, IMPATIENT.with_timeout(0.5))
    server.put(
        filled.removeprefix("gs://"),
        "in/list.csv",
        b"path\npatient00000/study1_positive/image0.png\n",
    )
    if "run.json" in down:
        server.put(filled.removeprefix("gs://"), "out/run.json", b"{}")
    server.faults.down = down
    source = "in/list.csv" if "csv" in down else "in"
    code = main.score(
        [
            "humerus-score",
            f"--input={filled}/{source}",
            f"--model={filled}/m",
            f"--output={filled}/out",
        ]
    )
    printed = capsys.readouterr().err
    assert code == 1 and printed.count("\n") == 1, printed
    assert what.format(bucket=filled) in printed and "503 Service Unavailable" in printed
    assert printed.endswith("); when that is over, start the same command again\n")


def test_a_whole_bucket_is_an_input(server, bucket):
    for name in ("a.png", "b/c.png", ".hidden"):
        server.put(bucket, name, b"x")
    assert {found.name for found in sources.find(f"gs://{bucket}")} == {"a.png", "b/c.png"}
    assert {found.name for found in sources.find(f"gs://{bucket}/*.png")} == {"a.png"}
    assert preflight.count_inputs(f"gs://{bucket}/", (), True, f"gs://{bucket}-out") is None


def test_only_what_a_run_made_is_deleted_in_a_bucket(server, bucket):
    ours = [
        "cams/a.jpg", "journal/1", "studies.csv-00000-of-00002", "studies.csv", "summary.json",
        "gallery_rows/x.js",
    ]  # fmt: skip
    others = [
        "cams_backup/a.jpg", "cams.txt", "journal.md", "studies-2019/a.png", "summary.json.bak",
    ]  # fmt: skip
    for name in (*ours, *others):
        server.put(bucket, f"out/{name}", b"x")
    record = run_record.RunRecord("m", "e", {}, 0.5, None, 1.0)
    with pytest.raises(ConfigError, match=r"no run\.json"):
        output_folder.claim(f"gs://{bucket}/out", record, resume=False, overwrite=True)
    assert len(server.objects(bucket)) == len(ours) + len(others)
    record.write(f"gs://{bucket}/out", finished=True)
    output_folder.claim(f"gs://{bucket}/out", record, resume=False, overwrite=True)
    assert set(server.objects(bucket)) == {f"out/{name}" for name in (*others, "run.json")}


def test_readers_never_see_a_part_of_an_object(bucket):
    uri, contents = f"gs://{bucket}/file", [b"a" * 400_000, b"b" * 400_000]
    filesystem.write(uri, contents[0])
    over, seen = threading.Event(), set()

    def look():
        while not over.is_set():
            seen.add(filesystem.read(uri))

    reader = threading.Thread(target=look)
    reader.start()
    for index in range(20):
        filesystem.write(uri, contents[index % 2])
    over.set()
    reader.join()
    assert seen and seen <= set(contents)


def test_no_more_is_fetched_than_any_picture_can_have(server, bucket, monkeypatch):
    monkeypatch.setattr(filesystem, "MAX_BYTES", 1000)
    for size in (0, 1000, 1001, 5_000_000):
        server.put(bucket, f"{size}", b"x" * size)
    assert filesystem.read(f"gs://{bucket}/0") == b""
    assert filesystem.read(f"gs://{bucket}/1000") == b"x" * 1000
    for size in (1001, 5_000_000):
        with pytest.raises(storage_errors.TooLargeError):
            filesystem.read(f"gs://{bucket}/{size}")


def test_names_and_deletion_stop_at_the_folder(server, bucket):
    for name in ("a/x", "a/deep/er/y", "a/deep.txt", "ab/z", "a", "empty/"):
        server.put(bucket, name, b"1")
    assert filesystem.names(f"gs://{bucket}/a") == ["deep", "deep.txt", "x"]
    assert filesystem.names(f"gs://{bucket}/none") == []
    assert filesystem.exists(f"gs://{bucket}/a/x") and not filesystem.exists(
        f"gs://{bucket}/a/deep"
    )
    filesystem.delete(f"gs://{bucket}/a/deep")
    assert sorted(server.objects(bucket)) == ["a", "a/deep.txt", "a/x", "ab/z", "empty/"]
    filesystem.delete(f"gs://{bucket}/a")
    assert sorted(server.objects(bucket)) == ["ab/z", "empty/"]


def test_an_artifact_that_was_altered_in_the_bucket_is_refused(
    server, filled, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.put(filled.removeprefix("gs://"), "m/saved_model.pb", b"other")
    with pytest.raises(ArtifactError, match="checksum"):
        model_copy.fetch(f"{filled}/m")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(
        ConfigError, match=r"cannot be copied here \(the storage answers 404 Not Found\)"
    ):
        model_copy.fetch(f"{filled}/elsewhere")


@pytest.mark.slow
def test_the_whole_job_in_a_bucket(server, bucket, tmp_path):
    """Preparation, training and scoring read and write nothing outside the bucket."""
    for index in range(48):
        kind = ("negative", "positive")[index % 2]
        image = picture(index, 64, 48) // 2 + 100 * (index % 2)
        split = "valid" if index % 4 > 1 else "train"
        name = f"MURA-v1.1/{split}/XR_HUMERUS/patient{index:05d}/study1_{kind}/image1.png"
        server.put(bucket, name, cv2.imencode(".png", image)[1].tobytes())
    environment = {
        **os.environ,
        **server.environment,
        **server.tensorflow_environment,
        "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
    }

    def run(function: str, *flags: str) -> None:
        module, _, name = function.rpartition(".")
        code = (
            f"import sys, {module}; from tests.support import tiny_net; sys.exit({module}.{name}())"
        )
        command = [sys.executable, "-c", code, *(flag.format(f"gs://{bucket}") for flag in flags)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    run(
        "trainer.main.prepare",
        "--source={}/MURA-v1.1",
        "--layout=mura",
        "--data_dir={}/data",
        "--image_size=32",
    )
    recipe = (
        "--config.backbone=tinynet",
        "--config.weights=none",
        "--config.epochs=2",
        "--config.global_batch_size=8",
    )
    run("trainer.main.train", "--data_dir={}/data", "--workdir={}/run", *recipe)
    run(
        "batch_inference.main.score",
        "--input={}/MURA-v1.1/valid",
        "--model={}/run/artifact",
        "--output={}/scored",
    )
    here = {name.partition("/")[2] for name in server.objects(bucket, "run/")}
    assert {
        "artifact/model.json",
        "artifact/saved_model.pb",
        "metrics.json",
        "report.html",
        "config.json",
    } <= here
    rows = json_rows(download(server, f"gs://{bucket}", "scored", tmp_path), "predictions")
    assert len(rows) == 24 and all((tmp_path / "scored" / row["cam"]).is_file() for row in rows)
