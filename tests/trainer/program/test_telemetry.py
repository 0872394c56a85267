"""Test what a cluster sees of a command: JSON logs, heartbeat, metrics, settings from a file."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import prometheus_client.parser
import pytest

from tests.support import commands, small_disk, small_run
from trainer.program import heartbeat, telemetry

ROOT = pathlib.Path(__file__).resolve().parents[3]


def run(command: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run one of our commands in a process of its own."""
    module = "batch_inference.main" if command in ("score", "overlay") else "trainer.main"
    code = (
        f"import sys; from {module} import {command}; "
        f"sys.argv[0] = 'humerus-{command}'; sys.exit({command}())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def objects(text: str) -> list[dict]:
    """Return the lines of a log, each of which must be an object with the fields of collectors."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "severity", "message"} <= set(one) for one in found)
    return found


@pytest.fixture
def port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(autouse=True)
def _no_telemetry_left():
    yield
    telemetry.start(["program"])


def test_each_line_of_a_command_is_a_json_object(tmp_path):
    source = small_run.write_source(tmp_path / "source")
    (tmp_path / "source" / "train0.png").write_bytes(b"no image")
    flags = (
        f"--source={source}",
        "--layout=manifest",
        f"--data_dir={tmp_path}/data",
        "--image_size=48",
        "--log_format=json",
    )
    done = run("prepare", *flags)
    assert done.returncode == 0, done.stderr
    printed = " ".join(one["message"] for one in objects(done.stdout))
    assert "train" in printed and str(tmp_path) in printed
    assert all(one["severity"] in ("INFO", "WARNING") for one in objects(done.stderr))


@pytest.mark.parametrize(
    ("command", "flags", "code", "sentence"),
    [
        (
            "prepare",
            ("--layout=mura", "--log_format=json"),
            2,
            "must be given; see humerus-prepare --help",
        ),
        (
            "wait",
            ("--log_format=json", "--data_dir=/nowhere", "--hours=0"),
            3,
            "/nowhere holds nothing after 0 hours",
        ),
        ("score", ("--log_format=json",), 2, "--input and --model and --output must be given"),
        ("wait", ("--log_format=json",), 2, "name one thing to wait for"),
    ],
)
def test_errors_are_json_objects_too(command, flags, code, sentence):
    done = run(command, *flags)
    assert done.returncode == code
    *_, last = objects(done.stderr)
    assert last["severity"] == "ERROR" and sentence in last["message"]


def test_an_exception_nobody_expected_is_one_object():
    code = (
        "from trainer.program import json_log; json_log.install(); print('before'); "
        "raise LookupError('two\\nlines')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and objects(done.stdout)[0]["message"] == "before"
    (error,) = objects(done.stderr)
    assert error["severity"] == "CRITICAL" and error["message"] == "LookupError: two\nlines"
    assert "Traceback" in error["exception"]


def test_what_a_library_writes_to_the_standard_error_stays_as_it_is():
    code = (
        "import os; from trainer.program import json_log; json_log.install(); "
        "os.write(2, b'F0101 the last words\\n'); os.abort()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGABRT, "F0101 the last words\n")


def test_the_probe_tells_a_working_process_from_a_hung_one(tmp_path):
    file = tmp_path / "heartbeat"

    def probe() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "trainer.program.heartbeat", str(file), "900"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    never = probe()
    assert never.returncode == 1 and never.stderr == "no sign of life yet; allowed are 900 s\n"
    heartbeat.Heartbeat(str(file)).beat()
    assert probe().returncode == 0
    os.utime(file, (time.time() - 1000,) * 2)
    hung = probe()
    assert hung.returncode == 1 and "no progress for 100" in hung.stderr


@pytest.mark.parametrize(("idle", "code"), [(0, 4), (1000, 1)])
def test_a_hung_program_that_still_hears_the_signal_ends_as_a_failure(tmp_path, idle, code):
    """The kubelet sends SIGTERM after a failed probe; that is counted, unlike a lost node."""
    file = tmp_path / "heartbeat"
    wait = "import sys; from trainer.main import wait; sys.exit(wait())"
    flags = [f"--heartbeat={file}", "--model=/nowhere"]
    process = subprocess.Popen(
        [sys.executable, "-c", wait, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert any("Waiting for" in line for line in process.stderr)
    os.utime(file, (time.time() - idle,) * 2)
    assert heartbeat.main(str(file), "900") == (1 if idle else 0)
    process.terminate()
    assert process.wait(timeout=60) == code
    assert ("the liveness probe saw no progress" in process.stderr.read()) == (code == 1)


def test_a_probe_that_failed_before_work_went_on_is_no_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.0)
    telemetry.start(["humerus-train", f"--heartbeat={tmp_path}/heartbeat"])
    os.utime(tmp_path / "heartbeat", (0, 0))
    assert heartbeat.main(f"{tmp_path}/heartbeat", "900") == 1 and telemetry.has_probe_failed()
    telemetry.report_progress()
    assert not telemetry.has_probe_failed()


def test_waiting_for_other_machines_is_no_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "WAITING_INTERVAL", 0.01)
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.0)
    telemetry.start(["humerus-train", f"--heartbeat={tmp_path}/heartbeat"])
    os.utime(tmp_path / "heartbeat", (0, 0))
    with telemetry.keep_alive():
        while heartbeat.age(tmp_path / "heartbeat") > 100:
            time.sleep(0.01)


def test_progress_beats_and_counts_on_a_port_and_in_a_file(tmp_path, port, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.0)
    beats, textfile = tmp_path / "heartbeat", tmp_path / "humerus.prom"
    flags = [f"--heartbeat={beats}", f"--metrics_file={textfile}", f"--metrics_port={port}"]
    assert telemetry.start(["humerus-train", *flags, "--data_dir", "d", "image"]) == [
        "humerus-train",
        "--data_dir",
        "d",
        "image",
    ]
    os.utime(beats, (0, 0))
    assert list(telemetry.report_each([1, 2])) == [1, 2] and heartbeat.age(str(beats)) < 100
    telemetry.report_progress(step=7, epoch=1, loss=0.5)
    on_port = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    for text in (on_port, textfile.read_text()):
        values = {
            s.name: s.value
            for f in prometheus_client.parser.text_string_to_metric_families(text)
            for s in f.samples
        }
        assert (
            values["humerus_step"] == 7
            and values["humerus_epoch"] == 1
            and values["humerus_loss"] == 0.5
        )
        assert time.time() - values["humerus_last_progress_timestamp_seconds"] < 100


def test_metrics_of_child_processes_are_not_written_over(tmp_path, port):
    textfile = tmp_path / "humerus.prom"
    flags = [f"--metrics_file={textfile}", f"--metrics_port={port}"]
    telemetry.start(["humerus-sweep", *flags])
    assert sorted(telemetry.hand_over()) == flags
    with socket.create_server(("127.0.0.1", port)):  # as the child takes it
        textfile.write_text("of the child")
        telemetry.report_progress(step=1)
    assert textfile.read_text() == "of the child"


def test_a_heartbeat_that_cannot_be_written_is_a_mistake_of_the_command_line(tmp_path):
    done = run("wait", f"--heartbeat={tmp_path}/no/such/folder", "--model=m")
    assert done.returncode == 2
    assert done.stderr.startswith("humerus-wait: --heartbeat cannot be used")


def test_metrics_on_a_full_disk_may_be_tried_again(tmp_path):
    with small_disk.mounted(tmp_path / "disk", 64) as disk:
        small_disk.fill(disk, 64)
        done = run("wait", f"--metrics_file={disk}/humerus.prom", "--model=m")
    assert done.returncode == 1 and "No space left on device" in done.stderr


@pytest.mark.slow
def test_training_beats_and_reports(tmp_path):
    data = commands.prepared(tmp_path)
    workdir, beats, textfile = tmp_path / "run", tmp_path / "heartbeat", tmp_path / "humerus.prom"
    (tmp_path / "train.flags").write_text(
        "# as a config map mounts it\n--config=smoke\n--config.epochs=1\n--config.ema_decay=0.5\n"
    )
    asked = [
        f"--flagfile={tmp_path}/train.flags",
        "--config=tests/support/small_recipe.py",
        "--config.epochs=2",
    ]
    asked += [f"--heartbeat={beats}", f"--metrics_file={textfile}", "--log_format=json"]
    done = run("train", f"--data_dir={data}", f"--workdir={workdir}", *asked)
    assert done.returncode == 0, done.stderr
    # TensorFlow's C++ code writes plain lines when it exports a model.
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert done.stderr.count("epoch 2/2 ") == 1
    assert sum("epoch 2/2 " in one["message"] for one in objects("\n".join(lines))) == 1
    assert [o["message"] for o in objects(done.stdout)][-1] == f"Artifact: {workdir}/artifact"
    settings = json.loads((workdir / "config.json").read_text())
    assert settings["config.ema_decay"] == 0.5 and settings["config.epochs"] == 2
    text = textfile.read_text()
    assert (
        "humerus_epoch 2.0" in text and "humerus_step 8.0" in text and "humerus_val_auroc" in text
    )
    assert heartbeat.age(str(beats)) < 300


def test_a_file_may_name_the_recipe(tmp_path):
    (tmp_path / "train.flags").write_text("--config=smoke\n--config.no_such_key=1\n")
    done = run("train", "--data_dir=d", "--workdir=w", f"--flagfile={tmp_path}/train.flags")
    assert done.returncode == 2 and "no_such_key" in done.stderr
    missing = run("train", "--data_dir=d", "--workdir=w", f"--flagfile={tmp_path}/absent.flags")
    assert missing.returncode == 2 and "absent.flags" in missing.stderr


@pytest.mark.slow
def test_waiting_ends_when_the_data_set_is_there_and_when_told_to(tmp_path):
    code = "import sys; from trainer.main import wait; sys.exit(wait())"

    def waiting(flag: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code, flag], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert any("Waiting for" in line for line in process.stderr)
        return process

    for_data, for_model = waiting(f"--data_dir={tmp_path / 'data'}"), waiting("--model=/nowhere")
    for_model.send_signal(signal.SIGTERM)
    commands.prepared(tmp_path)
    assert for_model.wait(timeout=60) == 4
    assert for_data.wait(timeout=60) == 0
