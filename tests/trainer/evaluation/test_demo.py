"""Run the demo of `make train-local`: its artifact passes the map checks, a damaged copy fails."""

import pathlib
import subprocess
import sys

import pytest

from tests.support import small_artifact
from trainer import artifact, local
from trainer.dataset import prepared_split
from trainer.evaluation import map_checks
from trainer.network import trained_network


def commands(monkeypatch, *options: str) -> list[list[str]]:
    """Return the commands that the demo would run; the last of them fails, so that the demo ends
    there.
    """
    called: list[list[str]] = []

    def run(command, check):
        called.append([pathlib.Path(command[0]).name, *command[1:]])
        return subprocess.CompletedProcess(command, 3 if called[-1][0] == "humerus-score" else 0)

    monkeypatch.setattr(local.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["local", "--work=demo", *options])
    with pytest.raises(SystemExit) as ended:
        local.main()
    assert ended.value.code == 3
    return called


def test_the_maps_are_held_against_what_was_rendered_before_anything_is_scored(monkeypatch):
    called = commands(monkeypatch)
    assert [name for name, *_ in called] == [
        f"humerus-{step}" for step in ("phantom", "prepare", "train", "verify", "score")
    ]
    masks = "--masks=demo/simulated/MURA-v1.1/findings.json"
    assert called[3][1:] == ["--model=demo/train/artifact", "--data_dir=demo/data", masks]
    assert "--input=demo/simulated/MURA-v1.1/valid" in called[4]


def test_of_a_source_of_ones_own_no_findings_are_known(monkeypatch):
    called = commands(monkeypatch, "--source=mine", "--layout=folders")
    assert [name for name, *_ in called] == [
        f"humerus-{step}" for step in ("prepare", "train", "score")
    ]
    assert "--input=mine" in called[-1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> pathlib.Path:
    work = tmp_path_factory.mktemp("demo")
    offline = ["--config.backbone=smallnet", "--config.weights=none"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.local", f"--work={work}", "--", *offline],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Maps        checks: 5 passed, 0 failed, 0 not measured" in done.stdout
    return work


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demos_artifact_passes_every_check(demo):
    checks = artifact.load(demo / "train" / "artifact").map_checks
    assert {name: found["passed"] for name, found in checks.items()} == dict.fromkeys(
        map_checks.CHECKS, True
    ), checks


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_with_its_head_shuffled_in_any_way_it_fails(demo):
    model = str(demo / "train" / "artifact")
    validation = prepared_split.load_split(str(demo / "data"), "validation")
    for seed in range(6):
        network = trained_network.load(model, artifact.load(model))
        small_artifact.shuffle_head(network.members[0].model, seed)
        found = map_checks.check(network, validation.images[:], validation.labels)
        assert found["evidence"]["passed"] is False, (seed, found["evidence"]["said"])
