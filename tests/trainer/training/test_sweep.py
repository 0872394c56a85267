"""Sweeps: the file of trials, one trial of it, and all of them one after the other."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.support import commands, small_artifact
from trainer import main
from trainer.errors import ConfigError
from trainer.evaluation import evaluate, run_table
from trainer.program import run_lock, signals, telemetry
from trainer.training import recipes, run_sweep, sweeps

TEXT = """
# name   settings
*        --config.epochs=3
base
slow     --config.learning_rate=1e-4   # ten times smaller
both     --config=smoke --config.dropout=0.5 --config.seed="7"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.txt"
    path.write_text(TEXT)
    return str(path)


def test_a_trial_is_a_name_and_settings(file):
    assert sweeps.read(file) == [
        sweeps.Trial("base", ("--config.epochs=3",)),
        sweeps.Trial("slow", ("--config.epochs=3", "--config.learning_rate=1e-4")),
        sweeps.Trial(
            "both",
            ("--config.epochs=3", "--config=smoke", "--config.dropout=0.5", "--config.seed=7"),
        ),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# none\n\n", "lists no trial"),
        ("a\n* --config.seed=1", r"line 2: write the settings of all trials \(\*\) before"),
        ("* --config.seed=1", "lists no trial"),
        ("a\nb\na", "line 3: the name a stands in an earlier line"),
        ("../a --config.seed=1", r"line 1: '\.\./a' cannot name a trial"),
        ("--config.seed=1", "line 1: '--config.seed=1' cannot name a trial"),
        ("a --workdir=x", "line 1: '--workdir=x' is not a setting"),
        ("a --config.seed 1", "line 1: '--config.seed' is not a setting"),
        ('a --config.seed="1', "line 1: a quotation mark is not closed"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, sentence):
    (tmp_path / "sweep.txt").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        sweeps.read(str(tmp_path / "sweep.txt"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none.txt", "No such file or directory"),
        (".", "expected a regular file"),
        ("/dev/zero", "expected a regular file"),
        ("binary.txt", "not UTF-8"),
    ],
)
def test_a_sweep_that_cannot_be_read(tmp_path, path, reason):
    (tmp_path / "binary.txt").write_bytes(b"base\xff")
    with pytest.raises(ConfigError, match=rf"cannot be read \({reason}"):
        sweeps.read(str(tmp_path / path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_sweep_may_come_from_an_editor_of_windows(tmp_path, encoding):
    path = tmp_path / "sweep.txt"
    path.write_bytes(TEXT.strip().replace("\n", "\r\n").encode(encoding))
    assert [trial.name for trial in sweeps.read(str(path))] == ["base", "slow", "both"]


@pytest.mark.parametrize("form", [["--workdir=runs/"], ["--workdir", "runs"]])
def test_the_settings_of_a_trial_come_last_and_its_folder_in_that_of_the_sweep(file, form):
    given = ["humerus-train", "--config=humerus", *form, "--config.dropout=0.1", "--data_dir=data"]
    changed = sweeps.replace_trial([*given, f"--sweep={file}", "--sweep_line=2"])
    assert changed == [
        *("humerus-train", "--config=smoke", "--config.dropout=0.1", "--data_dir=data"),
        *("--workdir=runs/both", "--config.epochs=3", "--config.dropout=0.5", "--config.seed=7"),
    ]
    assert sweeps.replace_trial(given) == given
    assert recipes.replace_names(changed)[1].endswith("configs/smoke.py")
    other = sweeps.replace_trial([*given, f"--sweep={file}", "--sweep_line=1"])
    assert other[1] == "--config=humerus" and other[-1] == "--config.learning_rate=1e-4"


@pytest.mark.parametrize("line", ["3", "-1", "x", ""])
def test_a_line_that_is_not_there_ends_with_exit_code_2(file, capsys, line):
    flags = ["--data_dir=data", "--workdir=runs", f"--sweep={file}", f"--sweep_line={line}"]
    assert main.train(["humerus-train", *flags]) == 2
    assert "lists 3 trials; expected a whole number from 0 to 2" in capsys.readouterr().err


def test_a_sweep_without_a_line_is_refused(file, capsys):
    assert main.train(["humerus-train", f"--sweep={file}", "--workdir=runs"]) == 2
    assert "--sweep_line must be given too" in capsys.readouterr().err


def row(value: float, difference: float | None) -> dict:
    measured = {"value": value, "low": value - 0.1, "high": value + 0.1}
    apart = difference and {"value": difference, "low": difference - 0.05, "high": None}
    apart = apart and {**apart, "high": difference + 0.05}
    return {**measured, "difference": apart, "p_value": apart and 0.012}


def test_the_table_has_differences_from_the_first_run():
    runs = {
        name: {metric: row(value, difference) for metric in run_table.COLUMNS}
        for name, value, difference in (("base", 0.7, None), ("slow", 0.75, 0.05), ("c", 0.6, -0.1))
    }
    result = {"baseline": "base", "split": "validation", "images": 9, "patients": 5, "runs": runs}
    lines = run_table.format_table(result, {"slow": ["--config.a=1"]}).splitlines()
    assert lines[0].startswith("9 images of 5 patients, split validation; differences from base")
    assert lines[4].split() == ["base", "0.700", "(0.600", "to", "0.800)"]
    assert "+0.050 (+0.000 to +0.100)" in lines[5] and lines[5].endswith("0.012  --config.a=1")
    assert "-0.100" in lines[6] and "2 comparisons" in lines[-1]


SLOW_TO_SAVE = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(4)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_to_the_trial_whose_checkpoint_is_waited_for(
    tmp_path, monkeypatch, number
):
    saved, ended_after_saving = tmp_path / "saved", []
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.2)  # far less than the trial takes
    # Where the machine is busy, the end of the program may take longer than that, too.
    monkeypatch.setattr(
        signals, "end_process", lambda *_: ended_after_saving.append(saved.exists())
    )

    def send() -> None:
        wait_for(tmp_path / "ready")
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), signals.interrupt_on_signals("sweep", "again"):
        run_sweep._run([sys.executable, "-c", SLOW_TO_SAVE, str(tmp_path)])
    assert saved.exists() and all(ended_after_saving)


def test_a_trial_saves_and_ends_when_its_sweep_is_killed(tmp_path):
    trial = "from trainer.program import signals; signals.stop_with_parent()\n" + SLOW_TO_SAVE
    sweep = (
        "import sys; from trainer.training import run_sweep; "
        f"run_sweep._run([sys.executable, '-c', {trial!r}, {str(tmp_path)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", sweep])
    try:
        wait_for(tmp_path / "ready")
    finally:
        process.kill()
        process.wait()
    wait_for(tmp_path / "saved")


def wait_for(path: pathlib.Path, seconds: float = 300) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} is not there"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({}, 3),  # all ended well, and left nothing
        ({"a": 2}, 2),
        ({"a": 3, "b": 3}, 3),
        ({"a": 2, "b": 3}, 3),
        ({"a": 2, "b": 1}, 1),
        ({"a": -9}, 1),  # ended by the system, as where memory runs out
    ],
)
def test_the_exit_code_tells_whether_another_try_can_help(
    file, tmp_path, monkeypatch, capfd, codes, expected
):
    # Each trial is a program that only ends with a code: none is finished, and there is no table.
    program = f"import os, sys; code = {codes}.get('abc'[int(sys.argv[-1][-1])], 0)"
    end = "os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)"
    assert sweep_programs(f"{program}; {end}", tmp_path, monkeypatch) == expected
    said = capfd.readouterr().err
    assert all(f"{name} with exit code {code}" in said for name, code in codes.items())


def sweep_programs(program: str, folder: pathlib.Path, monkeypatch, *more: str) -> int:
    """Run a sweep of three trials, each of which is a Python program, in `folder/runs`."""
    monkeypatch.setattr(run_sweep, "_TRAIN", program)
    monkeypatch.setattr(main, "_check_prepared", lambda _: None)
    sweep = folder / "abc.txt"
    sweep.write_text("a\nb\nc\n")
    flags = [f"--sweep={sweep}", "--data_dir=data", f"--workdir={folder}/runs"]
    return main.sweep(["humerus-sweep", *flags, *more])


def test_a_second_sweep_of_the_same_folder_is_refused(tmp_path, monkeypatch, capsys):
    with run_lock.hold(f"{tmp_path}/runs", "humerus-sweep"):
        assert sweep_programs("pass", tmp_path, monkeypatch) == 2
        assert f"{tmp_path}/runs is being written by process" in capsys.readouterr().err
        # The table may be asked for meanwhile, and there is no trial yet.
        assert sweep_programs("pass", tmp_path, monkeypatch, "--table_only") == 3
    # A trial takes the lock of its own folder while its sweep holds that of all.
    hold = (
        "import sys; from trainer.program import run_lock\n"
        f"with run_lock.hold(f'{tmp_path}/runs/' + sys.argv[-1][-1], 'humerus-train'): pass"
    )
    assert sweep_programs(hold, tmp_path, monkeypatch) == 3  # all ended well, and left nothing


def test_each_trial_reports_as_its_sweep_was_asked_to(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [
        "--log_format=text",
        f"--heartbeat={tmp_path}/heartbeat",
        f"--metrics_file={tmp_path}/humerus.prom",
        f"--metrics_port={port}",
    ]
    report = (
        "import pathlib, sys; from trainer.program import telemetry\n"
        "line = telemetry.start(sys.argv)[-1][-1]\n"  # it takes the port, too
        f"pathlib.Path({str(tmp_path)!r}, line).write_text(' '.join(sys.argv[-4:]))"
    )
    try:
        assert sweep_programs(report, tmp_path, monkeypatch, *flags) == 3
    finally:
        telemetry.start(["humerus-sweep"])
    for line in "012":
        assert sorted((tmp_path / line).read_text().split()) == sorted(flags)


def test_a_trial_whose_artifact_lacks_a_file_is_not_finished(tmp_path, monkeypatch, capsys):
    small_artifact.make(tmp_path / "runs" / "a" / "artifact", small_artifact.network())
    shutil.rmtree(tmp_path / "runs" / "a" / "artifact" / "variables")
    assert sweep_programs("", tmp_path, monkeypatch, "--table_only") == 3
    assert "no trial of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("--config.drpout=0.5", "no setting --config.drpout"), ("--config=humreus", "neither a")],
)
def test_a_misspelt_setting_is_found_before_the_first_trial_trains(
    tmp_path, monkeypatch, capsys, setting, reason
):
    monkeypatch.setattr(run_sweep, "run", lambda _: pytest.fail("a trial was trained"))
    monkeypatch.setattr(main, "_check_prepared", lambda _: None)
    sweep = tmp_path / "sweep.txt"
    sweep.write_text(f"base\nwrong {setting}\n")
    flags = [f"--sweep={sweep}", "--data_dir=data", f"--workdir={tmp_path}/runs"]
    assert main.sweep(["humerus-sweep", *flags]) == 2
    said = capsys.readouterr().err
    assert "trial wrong of " in said and reason in said


@pytest.mark.slow  # trains two networks and starts TensorFlow three times
def test_a_sweep_trains_what_can_be_trained_and_compares_it(data_dir, tmp_path, capsys):
    file = tmp_path / "sweep.txt"
    recipe = f"{commands.ROOT}/tests/support/small_recipe.py"
    file.write_text(f"* --config={recipe}\nbase\nseed --config.seed=5\nwrong --config.dropout=7\n")
    flags = [f"--sweep={file}", f"--data_dir={data_dir}", f"--workdir={tmp_path}/runs"]
    # The trial that is wrong keeps neither the others nor the table back, but the code is its own.
    assert main.sweep(["humerus-sweep", *flags, "--json=-"]) == 2
    said = capsys.readouterr()
    assert "1 of the trials failed (wrong with exit code 2)" in said.err
    result = json.loads(said.out)
    assert result["missing"] == ["wrong"] and result["failed"] == {"wrong": 2}
    assert list(result["table"]["runs"]) == ["base", "seed"]
    assert result["settings"] == {"base": ["seed=3"], "seed": ["seed=5"]}
    settings = json.loads((tmp_path / "runs" / "seed" / "config.json").read_text())
    assert settings["config.seed"] == 5
    artifacts = [f"{tmp_path}/runs/{name}/artifact" for name in ("seed", "base")]
    expected = evaluate.compare(*artifacts, data_dir, "validation")["image"]
    assert expected["brier"]["difference"]
    for metric in run_table.COLUMNS:
        found = result["table"]["runs"]["seed"][metric]
        assert found["value"] == expected[metric]["b"]
        for name in ("difference", "low", "high"):
            key = "value" if name == "difference" else name
            assert found["difference"][key] == expected[metric][name]
    assert main.sweep(["humerus-sweep", *flags, "--table_only", "--split=test"]) == 0
    said = capsys.readouterr().out
    assert "split test" in said and "not finished: wrong" in said
    # Of a line that was changed later, the table shows what was trained, or nothing.
    file.write_text(f"base --config={recipe}\nseed --config={recipe} --config.seed=6\n")
    assert main.sweep(["humerus-sweep", *flags, "--table_only", "--json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["seed"] == ["seed=5"]
    file.write_text(f"seed --config={recipe} --config.seed=6\n")
    assert main.sweep(["humerus-sweep", *flags]) == 2
    assert "1 of the trials failed (seed with exit code 2)" in capsys.readouterr().err
    flags[-1] = f"--workdir={tmp_path}/other"
    assert main.sweep(["humerus-sweep", *flags, "--table_only"]) == 3
    assert "no trial of" in capsys.readouterr().err
