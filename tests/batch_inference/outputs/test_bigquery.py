"""Loading into BigQuery: Google's clients against a double (tests/support/bigquery_double.py)."""

import pathlib
import shutil
import socket
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference.outputs import bigquery, schema
from tests.batch_inference.conftest import json_rows
from tests.support import bigquery_double, bucket_server
from trainer.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[3]


PROGRAM = "import sys; from batch_inference.main import score; sys.exit(score())"
LOAD = ("--bigquery=trial:scores", "--temp_location=gs://trial-bucket/tmp")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Start a storage emulator with a bucket."""
    with bucket_server.running(tmp_path_factory.mktemp("keys")) as bucket:
        bucket.make_bucket("trial-bucket")
        yield bucket


@pytest.fixture(scope="module")
def double(bucket, tmp_path_factory):
    """BigQuery's double beside it, and the environment that leads clients to both."""
    with pytest.MonkeyPatch.context() as patch, bigquery_double.running(bucket.url) as double:
        patch.setenv("BIGQUERY_EMULATOR_HOST", double.url)
        patch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        key = double.credentials(tmp_path_factory.mktemp("key") / "key.json")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        yield double


@pytest.fixture(autouse=True)
def _empty(double):
    double.tables, double.jobs, double.refused = {}, [], {}


def score(*arguments: object) -> subprocess.CompletedProcess:
    """Run the command in its own process, as clients keep credentials while a process lives."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def test_rows_arrive_by_one_append_job_a_table(double, bucket, model, radiographs, tmp_path):
    listed = sorted(radiographs.rglob("image*"))[:3]
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,ward\n" + "".join(f"{path},east\n" for path in listed))
    done = score(f"--input={manifest}", f"--model={model}", f"--output={tmp_path / 'out'}", *LOAD)
    assert done.returncode == 0, done.stderr
    assert not bucket.objects("trial-bucket"), "what was staged is not cleared away"
    # Nothing was rejected: a table, but no job.
    assert sorted(double.tables) == [
        f"trial.scores.{name}" for name in ("predictions", "rejections", "studies")
    ]
    assert sorted(job["destinationTable"]["tableId"] for job in double.jobs) == [
        "predictions",
        "studies",
    ]
    for job in double.jobs:
        name = job["destinationTable"]["tableId"]
        assert job["writeDisposition"] == "WRITE_APPEND"
        assert job["schemaUpdateOptions"] == ["ALLOW_FIELD_ADDITION"]
        assert job["sourceFormat"] == "NEWLINE_DELIMITED_JSON"
        assert job["sourceUris"] and all(
            uri.startswith("gs://trial-bucket/tmp/humerus-") for uri in job["sourceUris"]
        )
        expected = schema.to_bigquery(schema.list_tables(["ward"])[name])
        assert [
            {key: field[key] for key in expected[0]} for field in job["schema"]["fields"]
        ] == expected
        assert double.tables[f"trial.scores.{name}"]["schema"]["fields"] == expected
        key = "uri" if name == "predictions" else "study"
        assert sorted(
            double.tables[f"trial.scores.{name}"]["rows"], key=lambda row: row[key]
        ) == json_rows(tmp_path / "out", name)
    assert {row["ward"] for row in double.tables["trial.scores.predictions"]["rows"]} == {"east"}


@pytest.mark.slow
def test_a_refused_load_is_repeated_by_resuming_and_what_was_loaded_is_not(
    double, model, radiographs, tmp_path
):
    source = tmp_path / "in"
    shutil.copytree(radiographs, source)
    (source / "notes.txt").write_text("no image")
    old = [
        field
        for field in schema.to_bigquery(schema.list_tables()["predictions"])
        if field["name"] != "brightness"
    ]
    double.tables["trial.scores.predictions"] = {
        "schema": {"fields": old},
        "rows": [{"uri": "earlier"}],
    }
    arguments = (
        f"--input={source}",
        f"--model={model}",
        f"--output={tmp_path / 'out'}",
        "--cam=none",
        *LOAD,
    )

    def rows(name: str) -> list[dict]:
        return sorted(
            double.tables[f"trial.scores.{name}"]["rows"],
            key=lambda row: row.get("uri") or row["study"],
        )

    double.refused = {"rejections": "Quota exceeded"}
    done = score(*arguments)
    assert done.returncode == 3
    assert (
        "humerus-score: BigQuery did not take the rejections (Quota exceeded); "
        "the same command with --resume" in done.stderr
    )
    assert not rows("rejections") and len(rows("predictions")) == 15
    double.refused = {}
    for _ in range(2):
        done = score(*arguments, "--resume")
        assert done.returncode == 0, done.stderr
        assert rows("predictions") == [
            *json_rows(tmp_path / "out", "predictions"),
            {"uri": "earlier"},
        ]
        assert rows("studies") == json_rows(tmp_path / "out", "studies")
        assert rows("rejections") == json_rows(tmp_path / "out", "rejections")
    assert double.tables["trial.scores.predictions"]["schema"]["fields"][-1]["name"] == "brightness"
    # A table that was made anew holds no rows.
    del double.tables["trial.scores.studies"]
    done = score(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert rows("studies") == json_rows(tmp_path / "out", "studies")
    # Another output is another run, whose rows are wanted beside these.
    done = score(*arguments, f"--output={tmp_path / 'other'}")
    assert done.returncode == 0 and len(rows("predictions")) == 1 + 2 * 14


def test_what_forbids_the_load_shows_before_the_run(double, monkeypatch):
    tables = schema.list_tables(["ward"])
    monkeypatch.setattr(bigquery.filesystem, "delete", lambda uri: None)
    with pytest.raises(ConfigError, match="Not found: Dataset trial:nowhere"):
        bigquery.prepare(bigquery.Dataset("trial", "nowhere"), tables, "gs://trial-bucket/tmp")
    there = bigquery.Dataset("trial", "scores")
    double.tables["trial.scores.studies"] = {
        "schema": {"fields": [{"name": "Images", "type": "STRING"}]},
        "rows": [],
    }
    with pytest.raises(
        ConfigError, match="the table studies holds images as STRING, these rows hold it as INT64"
    ):
        bigquery.prepare(there, tables, "gs://trial-bucket/tmp")
    double.tables.clear()
    bigquery.prepare(there, tables, "gs://trial-bucket/tmp")
    bigquery.prepare(there, tables, "gs://trial-bucket/tmp")
    assert set(double.tables) == {f"trial.scores.{name}" for name in tables}
    with pytest.raises(ConfigError, match=r"does not accept a column named ward \(east\)"):
        bigquery.prepare(there, schema.list_tables(["ward (east)"]), "gs://trial-bucket/tmp")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(ConfigError, match="cannot be written to"):
        bigquery.prepare(there, tables, "gs://trial-bucket/tmp")


@pytest.mark.parametrize(
    ("text", "project", "name"),
    [
        ("p-1:set_2", "p-1", "set_2"),
        ("p-1.set_2", "p-1", "set_2"),
        ("example.com:p-1.s", "example.com:p-1", "s"),
    ],
)
def test_datasets_are_named_in_either_way(text, project, name):
    assert bigquery.Dataset.parse(text) == bigquery.Dataset(project, name)


@pytest.mark.parametrize("text", ["scores", "p:", ":s", "p:s.t", "p/s", "p:s-t"])
def test_what_names_no_dataset_is_refused(text):
    with pytest.raises(ConfigError, match="expected PROJECT:DATASET"):
        bigquery.Dataset.parse(text)


def test_loads_go_by_way_of_cloud_storage(monkeypatch):
    given = PipelineOptions(["--temp_location=gs://trial-bucket/t"])
    assert bigquery.choose_temporary_folder(given, "/out").startswith(
        "gs://trial-bucket/t/humerus-"
    )
    assert bigquery.choose_temporary_folder(given, "/out") != bigquery.choose_temporary_folder(
        given, "/out2"
    )
    here = bigquery.choose_temporary_folder(given, "/out")
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert bigquery.choose_temporary_folder(given, "/out") != here
    assert (
        bigquery.choose_temporary_folder(PipelineOptions([]), "gs://trial-bucket/out")
        == "gs://trial-bucket/out/beam-temp-bigquery"
    )
    with pytest.raises(ConfigError, match="add --temp_location=gs://"):
        bigquery.choose_temporary_folder(PipelineOptions([]), "/out")
