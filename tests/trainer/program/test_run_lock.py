"""One run per folder: who is refused, and that no end of a run leaves a lock behind."""

import signal
import subprocess
import sys

import pytest

from trainer.errors import ConfigError
from trainer.program import run_lock

HOLD = """
import sys, time
from trainer.program import run_lock
with run_lock.hold(sys.argv[1], "humerus-try"):
    print("held", flush=True)
    time.sleep(600)
"""


def start_holder(folder) -> subprocess.Popen:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_folder_is_refused_while_its_holder_lives_and_free_however_that_ends(tmp_path, end):
    folder = tmp_path / "out"
    holder = start_holder(folder)
    by_holder = f"written by process {holder.pid} on .* since 20"
    with pytest.raises(ConfigError, match=by_holder), run_lock.hold(str(folder), "humerus-try"):
        pytest.fail("two runs hold one folder")
    holder.send_signal(end)
    holder.wait()
    with run_lock.hold(str(folder), "humerus-try"):
        pass
    assert not list(folder.iterdir())


def test_an_error_within_releases_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), run_lock.hold(str(tmp_path), "humerus-try"):
        1 / 0  # noqa: B018
    with (
        run_lock.hold(str(tmp_path), "humerus-try"),
        run_lock.hold(str(tmp_path / "another"), "humerus-try"),
    ):
        pass


def test_a_holder_that_says_nothing_of_itself_is_refused_all_the_same(tmp_path):
    with run_lock.hold(str(tmp_path), "humerus-try"):
        (tmp_path / run_lock.LOCK_FILE).write_text("")
        refused = pytest.raises(ConfigError, match="written by another run")
        with refused, run_lock.hold(str(tmp_path), "humerus-try"):
            pass


@pytest.mark.parametrize("folder", ["s3://bucket/out", "/proc/1/no-folder"])
def test_where_there_can_be_no_lock_the_block_runs(folder):
    done = []
    with run_lock.hold(folder, "humerus-try"):
        done.append(folder)
    assert done == [folder]
