"""One run per folder in a bucket: races, dead holders, lost leases and storage that fails."""

import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from tests.support import bucket_server
from tests.support.commands import SHORT_LEASE
from trainer.errors import EXIT_FAILURE, ConfigError, StorageOutageError
from trainer.program import bucket_lease, run_lock

ROOT = pathlib.Path(__file__).resolve().parents[3]
IMPATIENT = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.1)
HOLD = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests that ignore it
{SHORT_LEASE}
from trainer.program import run_lock
with run_lock.hold(sys.argv[1], "humerus-try"):
    print("held", flush=True)
    time.sleep(600)
"""
HOLD_AND_COMPARE = f"""
import random, sys
{SHORT_LEASE}
from trainer.program import run_lock
with run_lock.hold(sys.argv[1], "humerus-try"):
    before = random.getstate()
    print("held", flush=True)
    input()
    print("no number drawn" if random.getstate() == before else "a number was drawn")
"""
_buckets = iter(range(1000))


@pytest.fixture(autouse=True)
def _connect(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket_lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(bucket_lease, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(bucket_lease, "DEFAULT_RETRY", IMPATIENT)
    monkeypatch.setattr(bucket_lease, "RETRY_SECONDS", 1.0)
    # A run that loses its lease ends its process, which is pytest's where a test holds it here.
    lost: list[tuple[str, int]] = []
    monkeypatch.setattr(run_lock.signals, "end_process", lambda *said: lost.append(said))
    yield
    server.faults.queued, server.faults.down = [], None
    assert not lost


@pytest.fixture
def folder(server) -> str:
    return server.make_bucket(f"lease-{next(_buckets)}") + "/runs/out"


def leases(server, folder: str) -> list[str]:
    bucket, _, prefix = folder.removeprefix("gs://").partition("/")
    return list(server.objects(bucket, f"{prefix}/{run_lock.LOCK_FILE}"))


def put_lease(server, folder: str, content: bytes) -> None:
    bucket, _, prefix = folder.removeprefix("gs://").partition("/")
    server.put(bucket, f"{prefix}/{run_lock.LOCK_FILE}", content)


def start_holder(folder: str, program: str = HOLD) -> subprocess.Popen:
    holder = subprocess.Popen(
        [sys.executable, "-c", program, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def hold(folder: str):
    return run_lock.hold(folder, "humerus-try")


def test_a_folder_is_refused_by_name_of_its_holder_and_free_after_it(server, folder):
    holder = start_holder(folder)
    said = rf"^{folder} is being written by process {holder.pid} on .* since 20.*; stop that run"
    with pytest.raises(ConfigError, match=said), hold(folder):
        pytest.fail("two runs hold one folder")
    assert holder.poll() is None
    holder.send_signal(signal.SIGINT)
    holder.wait()
    assert not leases(server, folder)
    with hold(folder), hold(f"{folder}-2"):
        assert len(leases(server, folder)) == 1
    assert not leases(server, folder)


def test_a_killed_run_holds_its_folder_until_the_lease_expires(server, folder, monkeypatch):
    holder = start_holder(folder)
    holder.kill()
    holder.wait()
    assert leases(server, folder)
    monkeypatch.setattr(bucket_lease, "EXPIRE_SECONDS", 2.0)
    with hold(folder):
        assert len(leases(server, folder)) == 1
    assert not leases(server, folder)


def test_renewals_draw_no_random_numbers(server, folder):
    """Keras draws the seeds of the initial weights from Python's generator in the meantime.

    In a process of its own: threads that other tests left behind here may draw too.
    """
    holder = start_holder(folder, HOLD_AND_COMPARE)
    requests = server.faults.requests
    while server.faults.requests < requests + 3:
        time.sleep(0.01)
    said, _ = holder.communicate("\n")
    assert said == "no number drawn\n"


@pytest.mark.parametrize("left_behind", [None, b'{"host": "gone"}', b"\xff no JSON"], ids=repr)
def test_of_runs_that_start_at_once_one_gets_the_folder(server, folder, monkeypatch, left_behind):
    monkeypatch.setattr(bucket_lease, "EXPIRE_SECONDS", 8.0)
    if left_behind:
        put_lease(server, folder, left_behind)
    start, all_answered = threading.Barrier(6), threading.Barrier(6)

    def attempt(_: int) -> bool:
        start.wait()
        try:
            with hold(folder):
                all_answered.wait(60)
                return True
        except ConfigError:
            all_answered.wait(60)
            return False

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(attempt, range(6))) == 1


@pytest.mark.parametrize("how", ["taken over", "deleted"])
def test_a_run_that_lost_its_lease_ends_with_a_sentence(server, folder, how):
    holder = start_holder(folder)
    if how == "deleted":
        bucket, _, name = folder.removeprefix("gs://").partition("/")
        quoted = f"{name}/{run_lock.LOCK_FILE}".replace("/", "%2F")
        server.call("DELETE", f"/storage/v1/b/{bucket}/o/{quoted}", None, {})
        by = "another run"
    else:
        other = {"host": "elsewhere", "process": 7, "since": "2026-01-01T00:00:00+00:00"}
        put_lease(server, folder, json.dumps(other).encode())
        by = "process 7 on elsewhere since 2026-01-01T00:00:00+00:00"
    _, said = holder.communicate(timeout=60)
    assert holder.returncode == EXIT_FAILURE
    assert said.splitlines()[-1].startswith(
        f"humerus-try: stopped, as {folder} is being written by {by}, which took it over"
    )
    # What the other run holds is not deleted.
    assert bool(leases(server, folder)) == (how == "taken over")


def test_a_run_that_cannot_renew_its_lease_ends_before_it_expires(server, folder):
    holder = start_holder(folder)
    server.faults.down = ""
    _, said = holder.communicate(timeout=60)
    assert holder.returncode == EXIT_FAILURE
    assert f"humerus-try: stopped, as {folder} could not be reached for" in said.splitlines()[-1]
    assert bucket_lease.GIVE_UP_SECONDS + 2 * bucket_lease.RENEW_SECONDS + 30 < (
        bucket_lease.EXPIRE_SECONDS
    )


@pytest.mark.parametrize("kind", bucket_server.Faults.KINDS)
def test_faults_of_the_storage_cost_no_lease(server, folder, kind):
    server.faults.queued = [kind] * 2
    with hold(folder):
        for _ in range(2):
            server.faults.queued = [kind] * 2
            while server.faults.queued:
                time.sleep(0.01)
        server.faults.queued = [kind] * 2
    server.faults.queued = []
    assert not leases(server, folder)


def test_storage_that_does_not_answer_is_to_be_tried_again(server, folder, monkeypatch):
    monkeypatch.setattr(bucket_lease, "DEFAULT_RETRY", IMPATIENT.with_timeout(0.3))
    server.faults.down = ""
    with pytest.raises(StorageOutageError, match="start the same command again"), hold(folder):
        pytest.fail("nobody knows who else writes")


def test_where_nothing_can_be_written_the_block_runs_and_fails_by_itself():
    done = []
    with hold("gs://no-such-bucket/out"):
        done.append(1)
    assert done
