"""Files that kill, crash or hang their worker, and manifests that are none, in whole runs."""

import os
import pathlib
import shutil

import pytest

from batch_inference import pipeline
from tests.batch_inference.conftest import json_rows
from trainer.errors import DataError
from trainer.workers import imaging

EXPECTED = {b"kill!": "decode_failed", b"crash": "decode_failed", b"loop!": "too_slow"}


@pytest.mark.parametrize("harm", EXPECTED, ids=lambda harm: harm.decode())
def test_a_file_that_ends_its_worker_costs_one_row(model, radiographs, tmp_path, monkeypatch, harm):
    source = tmp_path / "in"
    shutil.copytree(radiographs, source)
    monkeypatch.setattr(imaging.Imaging, "DECODE", "tests.support.worker_tasks:crash_on_bytes")

    def score(output: pathlib.Path) -> list[dict]:
        pipeline.run(pipeline.Options(str(source), str(model), str(output)))
        return json_rows(output, "predictions")

    before = score(tmp_path / "before")
    (source / "patient00001" / "bad.png").write_bytes(harm)
    assert score(tmp_path / "after") == before and len(before) == 14
    (rejected,) = json_rows(tmp_path / "after", "rejections")
    assert rejected["uri"] == str(source / "patient00001" / "bad.png")
    assert rejected["reason"] == EXPECTED[harm]


@pytest.mark.parametrize("kind", ["fifo", "device", "dangling"])
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_manifest_that_is_no_file_is_refused(model, tmp_path, kind, suffix):
    manifest = tmp_path / f"list{suffix}"
    if kind == "fifo":
        os.mkfifo(manifest)
    else:
        manifest.symlink_to({"device": "/dev/zero", "dangling": "/nowhere"}[kind])
    with pytest.raises(DataError, match=f"the manifest {manifest} cannot be read"):
        pipeline.run(pipeline.Options(str(manifest), str(model), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
