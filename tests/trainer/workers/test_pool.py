"""Worker processes: what they compute, and what a task costs that exhausts, crashes or hangs."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trainer.workers import process
from trainer.workers.pool import Pool
from trainer.workers.process import (
    PoolStoppedError,
    TaskCrashError,
    TaskError,
    TaskMemoryError,
    TaskTimeError,
)

TASKS = "tests.support.worker_tasks"


@pytest.fixture(scope="module")
def pool():
    made = Pool(count=2, memory=256 << 20, seconds=1.0)
    with made.stop_on_error():
        yield made


def run(pool: Pool, task: str, *arrays: np.ndarray, **arguments):
    return pool.run(f"{TASKS}:{task}", arrays, **arguments)


def pid(pool: Pool) -> int:
    return run(pool, "pid")[0]["pid"]


def doubled(pool: Pool) -> list:
    return run(pool, "double", np.arange(3, dtype=np.uint8))[1][0].tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0,), np.uint8),
        np.arange(12, dtype=np.uint8).reshape(3, 4, 1),
        np.arange(8, dtype=np.uint8)[::2],
        np.linspace(-1, 1, 7, dtype=np.float32),
        np.ones((5000, 5000), np.uint8),
    ],
    ids=["empty", "3d", "strided", "float", "25MB"],
)
def test_arrays_and_fields_come_back(pool, array):
    fields, (first, second) = run(pool, "double", array, array, text="é\udcff", number=0.1)
    assert fields == {"text": "é\udcff", "number": 0.1}
    for got in (first, second):
        assert got.dtype == array.dtype and (got == 2 * array).all() and got.shape == array.shape


def test_a_worker_imports_neither_tensorflow_nor_beam_nor_pydicom(pool):
    fields, _ = run(pool, "modules")
    first = {name.split(".")[0] for name in fields["modules"]}
    assert "cv2" in first and pid(pool) != os.getpid()
    assert not first & {"tensorflow", "keras", "apache_beam", "pydicom", "matplotlib", "scipy"}


def test_many_threads_share_the_workers_and_each_gets_its_own_result(pool):
    def one(number: int) -> bool:
        array = np.full(1000, number % 100, np.uint8)
        fields, (got,) = run(pool, "double", array, number=number)
        return fields["number"] == number and (got == 2 * array).all()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(200)))


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        ("crash", TaskCrashError, "SIGSEGV"),
        ("kill_self", TaskCrashError, "SIGKILL"),
        ("loop", TaskTimeError, "processor time"),
        ("exhaust", TaskMemoryError, "MemoryError"),
        ("fail", TaskError, "ValueError"),
        ("panic", TaskError, "PanicException"),
        ("babble", TaskError, ""),
        ("no_such_task", TaskError, "AttributeError"),
    ],
)
def test_a_bad_task_fails_alone(pool, task, error, said):
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(doubled, pool) for _ in range(20)]
        with pytest.raises(error) as caught:
            run(pool, task)
        assert [other.result() for other in others] == [[0, 2, 4]] * 20
    assert said in str(caught.value) and "JOHN" not in str(caught.value)
    assert doubled(pool) == [0, 2, 4]


@pytest.mark.parametrize(
    "message",
    [
        "null",
        "[]",
        "[[], [], 0]",
        "[{}, [], 0]",
        '[{"result": []}, [], 0]',
        '[{"result": {}}, [[0, "|u1", [-1]]], 0]',
        '[{"result": {}}, [[-5, "|u1", [1]]], 0]',
        '[{"result": {}}, [[0, "|u1", [1e400]]], 0]',
        '[{"result": {}}, [[0, "|u1", [99999999999999999999999]]], 0]',
        '[{"result": {}}, [[0, [], [1]]], 0]',
        '[{"result": {}}, [], 1e400]',
        '[{"result": {}}, [], {}]',
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_damaged_costs_its_task_and_its_worker(message):
    pool = Pool(1)
    with pool.stop_on_error():
        before = pid(pool)
        with pytest.raises(TaskCrashError):
            run(pool, "babble", message=message)
        assert doubled(pool) == [0, 2, 4] and pid(pool) != before


def test_no_more_tasks_run_at_once_than_there_are_workers(pool, tmp_path):
    with ThreadPoolExecutor(8) as threads:
        tasks = [threads.submit(run, pool, "overlap", folder=str(tmp_path)) for _ in range(40)]
        assert {task.result()[0]["running"] for task in tasks} <= {1, 2}


def test_a_worker_that_waits_for_ever_is_killed_too(monkeypatch):
    monkeypatch.setattr(process, "WALL_SECONDS", 1)
    pool = Pool(1, seconds=0.5)
    with pool.stop_on_error():
        with pytest.raises(TaskTimeError):
            run(pool, "sleep")
        assert doubled(pool) == [0, 2, 4]


def test_a_worker_that_is_killed_while_idle_costs_nothing():
    pool = Pool(1)
    with pool.stop_on_error():
        for _ in range(3):
            os.kill(pid(pool), signal.SIGKILL)
        assert doubled(pool) == [0, 2, 4]


def test_a_default_time_out_of_sockets_ends_no_worker():
    socket.setdefaulttimeout(0.05)
    try:
        pool = Pool(1)
        with pool.stop_on_error():
            before = pid(pool)
            time.sleep(0.3)
            assert pid(pool) == before
    finally:
        socket.setdefaulttimeout(None)


def test_killing_workers_at_random_costs_what_they_were_at_and_no_more():
    random, pool = np.random.default_rng(0), Pool(2)
    lost = done = 0
    with pool.stop_on_error(), ThreadPoolExecutor(4) as threads:

        def one(_: int) -> bool:
            try:
                return doubled(pool) == [0, 2, 4]
            except TaskCrashError:
                return False

        results = [threads.submit(one, number) for number in range(2000)]
        kills = 0
        while not all(result.done() for result in results) and kills < 5:
            with contextlib.suppress(ProcessLookupError, TaskCrashError):
                os.kill(pid(pool), signal.SIGKILL)
                kills += 1
            time.sleep(random.uniform(0, 0.2))
        done = sum(result.result() for result in results)
        lost = len(results) - done
    assert lost <= kills


@pytest.mark.parametrize("count", [0, 1, 5])
def test_calls_in_one_message_return_what_each_would_alone(pool, count):
    calls = [
        ([np.full(number, number, np.uint8)] * number, {"number": number})
        for number in range(count)
    ]
    found = pool.run_many(f"{TASKS}:refuse_odd", calls)
    for number, (fields, arrays) in enumerate(found):
        if number % 2:
            assert (fields, arrays) == ({"refusal": ["odd", str(number)]}, [])
        else:
            assert fields == {"number": number}
            assert [array.tolist() for array in arrays] == [[2 * number] * number] * number
    assert len(found) == count


@pytest.mark.parametrize("results", [None, 7, [], [[0, {}]], [[0, {}], 5], [[0, 1], [0, {}]]])
def test_a_damaged_answer_to_several_calls_is_asked_for_again(pool, monkeypatch, results):
    real = Pool._run

    def harmed(self, task, arrays, arguments):
        if isinstance(arguments, list):
            return {"results": results}, []
        return real(self, task, arrays, arguments)

    monkeypatch.setattr(Pool, "_run", harmed)
    found = pool.run_many(f"{TASKS}:refuse_odd", [([], {"number": 0}), ([], {"number": 1})])
    assert found == [({"number": 0}, []), ({"refusal": ["odd", "0"]}, [])]


def test_items_come_one_by_one_beside_other_tasks(pool):
    items = pool.stream(f"{TASKS}:count", [], to=4)
    seen = []
    for fields, (array,) in items:
        seen.append((fields["number"], array.tolist()))
        assert doubled(pool) == [0, 2, 4]
    assert seen == [(number, [number] * 3) for number in range(4)]


def test_a_crash_between_items_is_raised_there(pool):
    items = pool.stream(f"{TASKS}:count", [], to=4, crash_at=2)
    assert [next(items)[0]["number"] for _ in range(2)] == [0, 1]
    with pytest.raises(TaskCrashError):
        next(items)


def test_once_a_run_has_failed_nobody_waits_for_its_tasks():
    pool, started = Pool(2, seconds=600.0), threading.Event()

    def wait(_: int) -> None:
        started.set()
        with pytest.raises(PoolStoppedError):
            run(pool, "loop")

    with ThreadPoolExecutor(6) as threads:
        with pytest.raises(KeyboardInterrupt), pool.stop_on_error():
            waiting = [threads.submit(wait, number) for number in range(6)]
            started.wait()
            raise KeyboardInterrupt
        for one in waiting:
            one.result()
    with pool.stop_on_error():
        assert doubled(pool) == [0, 2, 4]


def python_that_dies(folder: pathlib.Path, starts: str) -> str:
    """Write a program that dies at these starts, comma-separated, and else becomes Python."""
    program = folder / "python"
    program.write_text(
        f"#!/bin/sh\necho x >>'{folder}/starts'\n"
        f"case ,{starts}, in *,$(grep -c x '{folder}/starts'),*) kill -9 $$;; esac\n"
        f"exec '{sys.executable}' \"$@\"\n"
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("starts", ["1", "1,2", "2"])
def test_a_worker_that_dies_at_its_start_is_started_again(tmp_path, monkeypatch, caplog, starts):
    monkeypatch.setattr(sys, "executable", python_that_dies(tmp_path, starts))
    pool = Pool(1)
    with caplog.at_level("WARNING"), pool.stop_on_error():
        for _ in range(2):
            os.kill(pid(pool), signal.SIGKILL)
    assert "in threads" not in caplog.text


def test_where_workers_die_at_every_start_their_task_fails_and_the_next_is_tried(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "executable", python_that_dies(tmp_path, "2,3"))
    pool = Pool(1)
    with pool.stop_on_error():
        os.kill(pid(pool), signal.SIGKILL)
        with pytest.raises(TaskCrashError):
            doubled(pool)
        assert doubled(pool) == [0, 2, 4]


def test_where_no_worker_ever_comes_up_threads_do_the_work(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    pool = Pool(2)
    with caplog.at_level("WARNING"), ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: doubled(pool), range(6))) == [[0, 2, 4]] * 6
    assert sum("in threads" in record.getMessage() for record in caplog.records) == 1


def test_where_no_process_starts_threads_do_the_work_and_the_log_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    pool = Pool(2)
    with caplog.at_level("WARNING"), ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: doubled(pool), range(10))) == [[0, 2, 4]] * 10
        with pytest.raises(TaskError, match="ValueError"):
            run(pool, "fail")
        assert [f["number"] for f, _ in pool.stream(f"{TASKS}:count", [], to=3)] == [0, 1, 2]
    assert sum("in threads" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, how):
    program = tmp_path / "program.py"
    program.write_text(
        "from trainer.workers.pool import Pool\n"
        "pool = Pool(1, seconds=2.0)\n"
        "task = 'tests.support.worker_tasks:'\n"
        "print(pool.run(task + 'pid', [])[0]['pid'], flush=True)\n"
        "pool.run(task + 'loop', [])\n"
    )
    root = pathlib.Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    worker = int(process.stdout.readline())
    process.send_signal(how)
    process.wait()
    deadline = time.monotonic() + 30
    while pathlib.Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
