"""Two processes that train as two hosts do, over loopback."""

import csv
import pathlib
import signal

import numpy as np
import pytest

from tests.support.commands import finish, log, prepared, start_hosts, stop_after
from trainer import artifact
from trainer.errors import EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED

CURVE = ("loss", "val_loss")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    return prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def two_devices(data_dir, tmp_path_factory) -> np.ndarray:
    workdir = tmp_path_factory.mktemp("devices") / "run"
    assert finish(data_dir, workdir, devices=2) == EXIT_DONE, log(workdir)[-3000:]
    return curve(workdir)


def curve(workdir: pathlib.Path) -> np.ndarray:
    """Losses by epoch, float [epochs, 2]."""
    with (workdir / "history.csv").open() as file:
        return np.array([[float(row[name]) for name in CURVE] for row in csv.DictReader(file)])


@pytest.mark.slow
def test_two_hosts_learn_what_two_devices_of_one_learn(data_dir, two_devices, tmp_path):
    workdir = tmp_path / "run"
    hosts = start_hosts(data_dir, workdir)
    assert [host.wait(timeout=300) for host in hosts] == [EXIT_DONE, EXIT_DONE], log(workdir)[-3000:]
    np.testing.assert_allclose(curve(workdir), two_devices, atol=1e-4)
    artifact.load(workdir / "artifact")
    assert log(workdir).count("epoch 1/4 ") == 1, "the chief alone tells of its epochs"


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_one_of_two_hosts_is_lost_and_both_go_on(data_dir, two_devices, tmp_path, victim, number):
    workdir = tmp_path / "run"
    hosts = start_hosts(data_dir, workdir)
    code = stop_after(hosts[victim], workdir, 6, number)
    other = hosts[1 - victim].wait(timeout=120)
    assert code == (EXIT_STOPPED if number == signal.SIGTERM else -number)
    assert other == EXIT_FAILURE, log(workdir)[-3000:]
    assert "humerus-train: a host of this run was lost" in log(workdir)
    hosts = start_hosts(data_dir, workdir)
    assert [host.wait(timeout=300) for host in hosts] == [EXIT_DONE, EXIT_DONE], log(workdir)[-3000:]
    assert "Going on from step" in log(workdir)
    np.testing.assert_allclose(curve(workdir), two_devices, atol=1e-4)
