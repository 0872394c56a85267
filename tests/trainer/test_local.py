"""Test `make train-local` with stand-ins for the programs: their arguments, and the summary."""

import json
import pathlib
import sys

import pytest

from tests.support import tiny_artifact
from trainer import errors, local

PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
exit {code}
"""
MEASURED = {"value": 0.9, "low": 0.8, "high": 0.95}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that runs the demo with stand-ins, and returns its exit code and calls."""
    calls = tmp_path / "calls"

    def run(*arguments: str, failing: str = "") -> tuple[int, list[str]]:
        calls.write_text("")
        for name in (
            "humerus-phantom",
            "humerus-prepare",
            "humerus-train",
            "humerus-verify",
            "humerus-score",
        ):
            (tmp_path / name).write_text(
                PROGRAM.format(calls=calls, code=3 if name == failing else 0)
            )
            (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(sys, "argv", ["local", f"--work={tmp_path}/work", *arguments])
        try:
            code = local.main()
        except SystemExit as ended:
            code = ended.code
        return code, calls.read_text().splitlines()

    return run


@pytest.fixture
def finished(tmp_path):
    """Return a function that writes the results that the summary reads."""

    def leave(**accuracy: float | None) -> pathlib.Path:
        image = {"auroc": MEASURED, "accuracy": {**MEASURED, **accuracy}}
        (tmp_path / "work/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "work/scored").mkdir(exist_ok=True)
        tiny_artifact.make(tmp_path / "work/train/artifact")
        metrics = {
            "test": {"image": image, "study": {"kappa": {"value": None, "low": None, "high": None}}}
        }
        (tmp_path / "work/train/metrics.json").write_text(json.dumps(metrics))
        (tmp_path / "work/scored/summary.json").write_text(
            json.dumps({"scored": 7, "rejections": {"truncated": 2}})
        )
        return tmp_path / "work"

    return leave


def test_without_a_source_simulated_radiographs_go_through_every_step(programs, finished, capfd):
    work = finished()
    code, calls = programs("--", "--config.epochs=2")
    assert code == errors.EXIT_DONE
    assert [call.split()[0] for call in calls if "verify" not in call] == [
        "humerus-phantom", "humerus-prepare", "humerus-train", "humerus-score",
    ]  # fmt: skip
    given = {call.split()[0]: call for call in calls}
    assert f"--source={work}/simulated/MURA-v1.1 --layout=mura" in given["humerus-prepare"]
    assert "--config=smoke --config.epochs=2" in given["humerus-train"]
    assert (
        f"--input={work}/simulated/MURA-v1.1/valid --model={work}/train/artifact"
        in given["humerus-score"]
    )
    said = capfd.readouterr().out
    assert (
        "AUROC 0.900 (0.800 to 0.950), accuracy 0.900 (0.800 to 0.950), study kappa undefined"
        in said
    )
    assert "7 images, 2 rejected" in said
    command = f"humerus-score --input=FOLDER --model={work}/train/artifact --output=scored"
    assert said.rstrip().endswith(f"/{command}")


@pytest.mark.parametrize(
    ("folders", "scored"),
    [
        (["valid/XR_HUMERUS", "valid/XR_WRIST", "train/XR_HUMERUS"], "/valid/XR_HUMERUS"),
        (["MURA-v1.1/valid/XR_HUMERUS", "MURA-v1.1/valid/XR_WRIST"], "/MURA-v1.1/valid/XR_HUMERUS"),
        (["valid/patient00001", "train/patient00002"], "/valid"),
        (["MURA-v1.1/valid/patient00001"], "/MURA-v1.1/valid"),
        (["elsewhere"], ""),
    ],
)
def test_of_mura_the_body_part_that_was_prepared_is_scored(
    programs, finished, tmp_path, folders, scored
):
    finished()
    for folder in folders:
        (tmp_path / "source" / folder).mkdir(parents=True)
    _, calls = programs(f"--source={tmp_path}/source", "--layout=mura")
    assert f"--input={tmp_path}/source{scored} " in calls[-1]


def test_it_ends_with_the_code_of_the_first_step_that_fails(programs):
    code, calls = programs(failing="humerus-prepare")
    assert code == 3
    assert [call.split()[0] for call in calls] == ["humerus-phantom", "humerus-prepare"]


def test_one_test_patient_has_figures_without_an_interval(finished):
    assert "accuracy 1.000, study" in local.summarise(finished(value=1.0, low=None, high=None), 60)
