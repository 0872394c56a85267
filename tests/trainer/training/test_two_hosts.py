"""Two processes that train as two hosts do, over loopback."""

import csv
import json
import os
import pathlib
import re
import signal
import socket
import time

import numpy as np
import pytest

from tests.support import small_run
from tests.support.commands import (
    finish,
    log,
    places_of_two_hosts,
    prepared,
    start,
    start_hosts,
    stop_after,
)
from trainer import artifact, machine
from trainer.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED
from trainer.evaluation import evaluate
from trainer.program import heartbeat
from trainer.training import strategy
from trainer.training.settings import flatten

CURVE = ("loss", "val_loss")
LAST = "--config.monitor=last"
"""Writes the best weights just before they are read: a host that doesn't wait has older ones."""


@pytest.fixture(scope="module")
def two_devices(data_dir, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("devices") / "run"
    assert finish(data_dir, workdir, LAST, devices=2) == EXIT_DONE, log(workdir)[-3000:]
    return workdir


def curve(workdir: pathlib.Path) -> np.ndarray:
    """Losses by epoch, float [epochs, 2]."""
    with (workdir / "history.csv").open() as file:
        return np.array([[float(row[name]) for name in CURVE] for row in csv.DictReader(file)])


def assert_same(hosts: pathlib.Path, devices: pathlib.Path) -> None:
    """Hosts learn what devices do, and every host has its share in the figures."""
    np.testing.assert_allclose(curve(hosts), curve(devices), atol=1e-4)
    found, expected = (
        flatten(json.loads((workdir / "metrics.json").read_text())) for workdir in (hosts, devices)
    )
    assert found == {name: pytest.approx(value, abs=1e-3) for name, value in expected.items()}
    artifact.load(hosts / "artifact")


def finished(data_dir: str, workdir: pathlib.Path) -> str:
    """Wait until both hosts have finished the run; return their outputs."""
    before = len(log(workdir)) if workdir.exists() else 0  # where it is started again
    hosts = start_hosts(data_dir, workdir, LAST)
    assert [host.wait(timeout=300) for host in hosts] == [EXIT_DONE, EXIT_DONE], log(workdir)[
        -3000:
    ]
    return log(workdir)[before:]


@pytest.mark.slow
def test_two_hosts_learn_what_two_devices_of_one_learn(data_dir, two_devices, tmp_path):
    said = finished(data_dir, tmp_path / "run")
    assert_same(tmp_path / "run", two_devices)
    assert said.count("epoch 1/4 ") == said.count("Artifact: ") == 1, (
        "the chief alone tells of its epochs and of the result"
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_hosts_is_lost_and_both_go_on(data_dir, two_devices, tmp_path, victim):
    workdir = tmp_path / "run"
    hosts = start_hosts(data_dir, workdir, LAST)
    assert stop_after(hosts[victim], workdir, 6, signal.SIGKILL) == -signal.SIGKILL
    assert hosts[1 - victim].wait(timeout=120) == EXIT_FAILURE, log(workdir)[-3000:]
    assert "humerus-train: a host of this run was lost" in log(workdir)
    assert "Continuing from step" in finished(data_dir, workdir)
    assert_same(workdir, two_devices)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_two_hosts_of_which_one_is_asked_to_stop_do_so_together(
    data_dir, two_devices, tmp_path, asked
):
    workdir = tmp_path / "run"
    hosts = start_hosts(
        data_dir, workdir, LAST, "--config.checkpoint_every_steps=100"
    )  # else at the end of an epoch alone
    stop_after(hosts[asked], workdir, 4, signal.SIGTERM, patience=0.0)
    assert [host.wait(timeout=120) for host in hosts] == [EXIT_STOPPED, EXIT_STOPPED], log(workdir)[
        -3000:
    ]
    stopped = re.findall(r"humerus-train: stopped by (.*) after step (\d+); (.*)", log(workdir))
    (step,) = {int(step) for _, step, _ in stopped}
    assert max((workdir / "checkpoints").glob("ckpt-*.json")).name == f"ckpt-{step:08d}.json"
    assert {by for by, _, _ in stopped} == {"SIGTERM", "a signal to another host"}
    assert {then for _, _, then in stopped} == {
        "the same command continues from there",
        "the first host has written the checkpoint",
    }
    assert f"Continuing from step {step} " in finished(data_dir, workdir)
    assert_same(workdir, two_devices)


@pytest.mark.slow
def test_hosts_that_do_not_share_their_workdir_say_so_before_they_train(data_dir, tmp_path):
    workdirs = [tmp_path / "one", tmp_path / "another"]
    hosts = [
        start(data_dir, w, environment=place)
        for w, place in zip(workdirs, places_of_two_hosts(), strict=True)
    ]
    for host, workdir in zip(hosts, workdirs, strict=True):
        assert host.wait(timeout=120) == EXIT_CONFIG, log(workdir)[-3000:]
        assert (
            f"humerus-train: the hosts of this run find different files in --workdir={workdir};"
            in log(workdir)
        )
        assert not (workdir / "checkpoints").exists()


@pytest.mark.slow
def test_hosts_started_with_different_settings_or_data_do_not_train(data_dir, tmp_path):
    workdir = tmp_path / "run"
    other_data = prepared(tmp_path / "other", counts={**small_run.SPLITS, "train": 24})
    flags = [[], [f"--data_dir={other_data}", "--config.global_batch_size=16", "--config.seed=5"]]
    hosts = [
        start(data_dir, workdir, *each, environment=place)
        for each, place in zip(flags, places_of_two_hosts(), strict=True)
    ]
    assert [host.wait(timeout=300) for host in hosts] == [EXIT_CONFIG, EXIT_CONFIG], log(workdir)[
        -3000:
    ]
    for batch_size, other, seed, other_seed in ((8, 16, 3, 5), (16, 8, 5, 3)):
        assert (
            "humerus-train: the hosts of this run were started with different settings or data:"
            f" config.global_batch_size is {batch_size} here and {other} on another host;"
            f" config.seed is {seed} here and {other_seed} on another host; data.fingerprint is '"
        ) in log(workdir)
    assert not workdir.exists()


@pytest.mark.slow
def test_a_host_whose_port_is_in_use_says_so(data_dir, tmp_path):
    workdir = tmp_path / "run"
    with socket.create_server(("localhost", 0)) as used:
        address = f"localhost:{used.getsockname()[1]}"
        place = {strategy.HOSTS: f"{address},localhost:1", strategy.INDEX: "0"}
        host = start(data_dir, workdir, environment=place)
        assert host.wait(timeout=300) == EXIT_FAILURE, log(workdir)[-3000:]
    assert (
        f"humerus-train: this host can't open its port in {address} (Address already in use); end"
        in log(workdir)
    )


@pytest.mark.slow
def test_a_host_that_waits_for_a_late_one_shows_life_and_hears_signals(data_dir, tmp_path):
    workdir, beats = tmp_path / "run", tmp_path / "heartbeat"
    places = places_of_two_hosts()
    chief = start(data_dir, workdir, f"--heartbeat={beats}", environment=places[0])
    while "Waiting for localhost:" not in log(workdir):
        assert chief.poll() is None, log(workdir)[-3000:]
        time.sleep(0.1)
    os.utime(beats, (0, 0))
    while heartbeat.age(str(beats)) > 100:
        assert chief.poll() is None, log(workdir)[-3000:]
        time.sleep(0.1)
    chief.send_signal(signal.SIGTERM)
    assert chief.wait(timeout=300) == EXIT_STOPPED
    assert "humerus-train: stopped; run the same command" in log(workdir)


@pytest.mark.slow
def test_two_hosts_refuse_float16_and_neither_waits_for_the_other(data_dir, tmp_path):
    workdir = tmp_path / "run"
    hosts = start_hosts(data_dir, workdir, "--config.precision=mixed_float16")
    assert [host.wait(timeout=120) for host in hosts] == [EXIT_CONFIG, EXIT_CONFIG], log(workdir)[
        -3000:
    ]
    assert log(workdir).count("this run has 2 replicas, which can't agree on an overflow") == 2
    assert not workdir.exists()


@pytest.mark.slow
def test_two_hosts_compute_in_one_precision_and_report_what_the_artifact_scores(data_dir, tmp_path):
    workdir = tmp_path / "run"
    hosts = start_hosts(data_dir, workdir, LAST, "--config.precision=auto")
    assert [host.wait(timeout=300) for host in hosts] == [EXIT_DONE, EXIT_DONE], log(workdir)[
        -3000:
    ]
    expected = "mixed_bfloat16" if machine.has_bfloat16_products() else "float32"
    assert log(workdir).count(f"This run computes in {expected}") == 2
    recorded = json.loads((workdir / "config.json").read_text())
    assert recorded["config.precision"] == expected
    reported = json.loads((workdir / "metrics.json").read_text())["test"]["image"]
    scored = evaluate.evaluate(str(workdir / "artifact"), data_dir)["image"]
    assert {name: each["value"] for name, each in scored.items()} == {
        name: pytest.approx(each["value"], abs=1e-5) for name, each in reported.items()
    }
