"""The rendered Jobs run as processes: their command lines, settings, volumes and rules."""

import csv
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from tests.support import cluster, manifests, network
from tests.support.cluster import SECONDS, Job

pytestmark = pytest.mark.skipif(
    not cluster.can_run(), reason="containers take root, or a machine that gives users namespaces"
)

TRAIN = "--config=tests/support/small_recipe.py\n--config.epochs=6\n"
PREPARE = "--layout=mura\n--image_size=48\n"


def steps(root: pathlib.Path) -> list[int]:
    """Return the steps of the checkpoints of the run `first`."""
    return sorted(
        int(mark.stem[5:]) for mark in root.glob("data/runs/first/checkpoints/ckpt-*.json")
    )


def wait_for(root: pathlib.Path, step: int, job: Job) -> None:
    """Until there is a checkpoint of that step or a later one."""
    end = time.monotonic() + SECONDS
    while max(steps(root), default=0) < step:
        assert time.monotonic() < end and job.status is None, job.log()
        time.sleep(0.005)


def history(root: pathlib.Path) -> list[dict[str, str]]:
    """Return the history of the run: a row for each epoch."""
    with (root / "data/runs/first/history.csv").open() as file:
        return [
            {name: row[name] for name in ("epoch", "loss", "val_loss", "val_auroc")}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> list[dict]:
    """Return the overlay `local` with a user's changes for a tiny run."""
    folder = tmp_path_factory.mktemp("overlay") / "own"
    common = ["components/common"]
    return manifests.render(
        manifests.write_overlay(
            folder, "overlays/local", common, env=["PATIENTS=24"], train=TRAIN, prepare=PREPARE
        )
    )


@pytest.fixture(scope="module")
def finished(local, tmp_path_factory) -> pathlib.Path:
    """Return the root of a cluster in which all three Jobs started at once and ran undisturbed."""
    root = tmp_path_factory.mktemp("cluster")
    jobs = [Job(local, name, root) for name in ("score", "train", "prepare")]
    for job in jobs:
        assert job.wait() == "Complete", job.log()
        assert len(job.pods) == 1 and not job.failures
        # What libraries write to the standard error by themselves stays as it is.
        objects = [line for line in job.log().splitlines() if line.startswith("{")]
        assert objects
        for line in objects:
            assert {"time", "severity", "message"} <= set(json.loads(line))
    return root


@pytest.fixture
def prepared(finished, tmp_path) -> pathlib.Path:
    """Return a root of its own with prepared data, not yet trained on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").symlink_to(finished / "data" / "data")
    return tmp_path


@pytest.fixture
def hosts() -> Iterator[network.Network]:
    with network.of_two("train-0.train", "train-1.train") as found:
        yield found


@pytest.fixture
def two_workers(finished, hosts, tmp_path) -> Job:
    """Return Job `train` of `multi-node-2x8` on prepared data, with a volume and small batch."""
    fewer = ["--config.global_batch_size=8", "--config.precision=float32"]
    components = ["components/storage-pvc", "components/common"]
    flags = {"train": TRAIN, "prepare": PREPARE}
    folder = manifests.write_overlay(
        tmp_path / "own", "overlays/multi-node-2x8", components, ["STORAGE=/data"], fewer, **flags
    )
    root = tmp_path / "cluster"
    (root / "data").mkdir(parents=True)
    (root / "data" / "data").symlink_to(finished / "data" / "data")
    return Job(manifests.render(folder), "train", root, hosts)


def test_what_runs_here_can_write_to_its_volumes_alone_and_knows_its_pods(tmp_path, hosts):
    """As a container does; otherwise the tests below would not notice a file in a wrong place."""
    tries = "for place in / /etc /tmp . $HOME/..; do touch $place/x && echo $place; done"
    tries += "; touch $HOME/x; id -u"
    tries += "; getent hosts train-0.train train-1.train; grep CapEff /proc/self/status; echo $$"
    volumes = [{"name": "tmp", "mountPath": "/tmp"}]
    home = [{"name": "HOME", "value": "/tmp"}]
    main = {
        "command": ["sh", "-c"],
        "args": [tries],
        "envFrom": [],
        "env": home,
        "volumeMounts": volumes,
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "containers": [main],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    spec = {"completionMode": "Indexed", "completions": 2, "template": {"spec": pod}}
    job = Job(
        [{"kind": "Job", "metadata": {"name": "tries"}, "spec": spec}], "tries", tmp_path, hosts
    )
    assert job.wait() == "Complete"
    names = ["10.77.0.1 train-0.train", "10.77.0.2 train-1.train"]
    for pod in job.pods:
        said = [" ".join(line.split()) for line in pod.log.read_text().splitlines()]
        assert [line for line in said if "Read-only" not in line] == [
            "0",
            *names,
            "CapEff: 0000000000000000",
            "1",
        ]
        assert len(said) == 10 and (pod.log.parent / "tmp" / "x").exists()


@pytest.mark.slow
def test_three_jobs_started_at_once_end_in_a_scored_folder(finished):
    data = finished / "data"
    assert sorted(path.name for path in data.iterdir()) == ["data", "runs", "scored", "simulated"]
    metrics = json.loads((data / "runs/first/metrics.json").read_text())
    assert 0 <= metrics["test"]["image"]["auroc"]["value"] <= 1
    summary = json.loads((data / "scored/first/summary.json").read_text())
    images = list(data.glob("simulated/MURA-v1.1/valid/**/*.png"))
    assert summary["scored"] == len(images) > 0
    assert {
        path.name.split(".")[1][:5] for path in (data / "scored/first").glob("predictions*")
    } == {"jsonl", "csv", "parqu"}
    # Besides the volume and the pods' own folders, nothing was written.
    assert {path.name for path in finished.iterdir()} == {
        "data",
        "prepare-0-0",
        "train-0-0",
        "score-0-0",
    }


@pytest.mark.slow
def test_whatever_ends_a_pod_nothing_is_lost_but_the_steps_since_the_last_checkpoint(
    local, finished, prepared
):
    job = Job(local, "train", prepared)

    job.pod(0)
    wait_for(prepared, 4, job)
    job.disrupt(0)
    assert job.pod(0).wait() == 4 and job.failures == 0, "a node taken away is not counted"
    stopped_at = steps(prepared)[-1]

    job.pod(1)
    wait_for(prepared, stopped_at + 2, job)
    job.pods[1].send(signal.SIGKILL)  # as the kernel does where memory runs out
    assert job.pod(1).wait() == 137
    killed_at = steps(prepared)[-1]

    hung = job.pod(2)
    assert job.failures == 1
    wait_for(prepared, killed_at + 2, job)
    assert hung.probe(), "at work"
    hung.send(signal.SIGSTOP, everyone=True)
    beats = prepared / "train-0-2" / "tmp" / "heartbeat"
    os.utime(beats, (time.time() - 4000,) * 2)
    hung.grace = 1
    assert not hung.probe()
    assert hung.wait() == 137

    job.pod(3)
    assert job.failures == 2
    wait_for(prepared, steps(prepared)[-1] + 2, job)
    runs = prepared / "data" / "runs"
    runs.rename(prepared / "away")
    runs.write_text("storage is unavailable")
    assert job.pod(3).wait() == 1
    runs.unlink()
    (prepared / "away").rename(runs)

    busy = job.pod(4)
    assert job.failures == 3
    wait_for(prepared, steps(prepared)[-1] + 2, job)
    busy.grace = 0
    job.disrupt(4)
    assert busy.wait() == 137, "killed before it could stop"

    job.pod(5)
    assert job.failures == 3, "nor is that counted"
    wait_for(prepared, steps(prepared)[-1] + 2, job)
    job.pass_deadline()
    assert (job.status, job.reason) == ("Failed", "DeadlineExceeded") and job.pod(5).wait() == 4

    again = Job(local, "train", prepared)
    assert again.wait() == "Complete", again.log()
    log = job.log() + again.log()
    assert (
        f"Continuing from step {stopped_at} " in log and f"Continuing from step {killed_at} " in log
    )
    assert history(prepared) == history(finished), "as if nothing had happened"


@pytest.mark.slow
def test_a_wrong_configuration_and_wrong_data_fail_the_job_at_once(prepared, tmp_path):
    flags = {"train": TRAIN + "--config.pooling=median\n", "prepare": PREPARE}
    wrong = ["PATIENTS=2", "SOURCE=/data/no/such/folder"]
    objects = manifests.render(
        manifests.write_overlay(
            tmp_path / "own", "overlays/local", ["components/common"], wrong, **flags
        )
    )
    for job, code, sentence in (
        (Job(objects, "train", prepared), 2, "expected avg or max"),
        (Job(objects, "prepare", tmp_path / "cluster"), 3, "/no/such/folder"),
    ):
        assert job.wait() == "Failed" and job.reason == "PodFailurePolicy" and job.failures == 0
        assert job.codes() == {code: 1}, job.log()
        assert any(sentence in line and '"ERROR"' in line for line in job.log().splitlines())


@pytest.mark.slow
def test_two_workers_one_killed_are_restarted_by_the_jobs_rules(two_workers, tmp_path):
    root, job = tmp_path / "cluster", two_workers
    job.pod(0), job.pod(1)
    wait_for(root, 6, job)
    job.pods[1].send(signal.SIGKILL)
    assert job.pods[1].wait() == 137 and job.pods[0].wait() == 1

    # Both again; then the chief alone, when training is over and only the report is left to write.
    job.pod(2), job.pod(3)
    run = root / "data/runs/first"
    while not (run / "artifact/model.json").exists():
        assert job.status is None, job.log()
        time.sleep(0.005)
    (chief,) = (pod for pod in job.pods[2:] if pod.index == 0)
    chief.send(signal.SIGKILL)
    assert not (run / "metrics.json").exists()
    assert job.wait() == "Complete", job.log()
    assert len(job.pods) == 6 and job.failures == 4 and job.codes() == {0: 2, 137: 2, 1: 2}
    assert job.log().count("Continuing from step") == 4
    assert (run / "metrics.json").exists()


@pytest.mark.slow
def test_two_workers_one_frozen_end_in_a_failure_that_is_counted(two_workers, tmp_path):
    """The other stands in a collective that will never end."""
    root, job = tmp_path / "cluster", two_workers
    waiting, frozen = job.pod(0), job.pod(1)
    wait_for(root, 6, job)
    frozen.send(signal.SIGSTOP, everyone=True)
    for pod in (waiting, frozen):
        beats = root / f"train-{pod.index}-{pod.index}" / "tmp" / "heartbeat"
        os.utime(beats, (time.time() - 4000,) * 2)
        pod.grace = 2
        assert not pod.probe()
        # It ends without having seen the signal, or says that it lost the other.
        assert pod.wait() in (137, 1)
    assert job.wait() == "Complete", job.log()
    assert job.failures == 2 and len(job.pods) == 4 and job.log().count("Continuing from step") == 2
