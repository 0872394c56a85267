"""Test all commands as a user meets them: help, mistakes, dry runs, JSON, messages."""

import dataclasses
import importlib
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests.support import commands, dicom_files, small_run, tiny_artifact
from trainer import artifact, errors
from trainer.program import command_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
OF_EVERY_PROGRAM = {"log_format", "heartbeat", "metrics_port", "metrics_file"}


def entry_points() -> dict[str, str]:
    """Return the function of each command by name, from setup.py."""
    lines = re.findall(
        r'"(humerus-\w+) = ([\w.]+:\w+)"', (ROOT / "setup.py").read_text(encoding="utf-8")
    )
    return dict(lines)


PROGRAMS = entry_points()


def call(name: str, *arguments: str) -> int:
    module, function = PROGRAMS[name].split(":")
    return getattr(importlib.import_module(module), function)([name, *arguments])


def shown_flags(said: str) -> list[str]:
    """Return the names of the flags that a help text describes, without the dashes."""
    return re.findall(r"^  --(?:\[no\])?(\w+)", said, re.MULTILINE)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Make a model, a broken one, a folder with two images, an empty folder, and a file."""
    root = tmp_path_factory.mktemp("given")
    tiny_artifact.make(root / "model")
    shutil.copytree(root / "model", root / "broken")
    (root / "broken" / "saved_model.pb").write_bytes(b"other")
    (root / "empty").mkdir()
    (root / "images").mkdir()
    for number in range(2):
        assert cv2.imwrite(
            str(root / "images" / f"{number}.png"), np.full((40, 30), 50 + number, np.uint8)
        )
    (root / "file").write_text("in the way")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def places(given, tmp_path, monkeypatch) -> dict[str, pathlib.Path]:
    """Return these, and `out`, a path that does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return given | {"out": tmp_path / "out"}


def test_these_are_all():
    assert len(PROGRAMS) == 13


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_a_sentence_an_example_and_the_programs_own_flags(name, capsys):
    assert call(name, "--help") == 0
    short = capsys.readouterr().out
    sentence, examples, *_ = short.split("\n\n")
    assert sentence.rstrip().endswith((".", ":")) or "." in sentence
    assert all(line.startswith((name, " ")) for line in examples.splitlines())
    own = shown_flags(short)
    assert len(own) == len(set(own)) and not OF_EVERY_PROGRAM & set(own)
    # What the examples show is there.
    assert set(re.findall(r"--(\w+)(?![\w.])", examples)) <= set(own) | {"config"}
    assert call(name, "--helpfull") == 0
    assert set(shown_flags(capsys.readouterr().out)) == set(own) | OF_EVERY_PROGRAM


@pytest.mark.parametrize("columns", [60, 90])
def test_a_help_text_fits_the_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call("humerus-score", "--help") == 0
    described = capsys.readouterr().out.split("\n\n")[3]
    assert max(map(len, described.splitlines())) <= columns


def test_the_same_flag_means_the_same_everywhere(capsys):
    """Commands spell common flags alike: a model is --model, prepared data are
    --data_dir, the result is --json.
    """
    known = {}
    for name in PROGRAMS:
        call(name, "--help")
        known[name] = set(shown_flags(capsys.readouterr().out))
    takes_a_model = {"evaluate", "verify", "wait", "explain", "score"}
    assert {name for name in known if "model" in known[name]} == {
        f"humerus-{name}" for name in takes_a_model
    }
    tells_nothing = {"phantom", "wait"}
    assert {name for name in known if "json" not in known[name]} == {
        f"humerus-{name}" for name in tells_nothing
    }
    assert {name for name in known if "dry_run" in known[name]} == {
        f"humerus-{name}" for name in ("prepare", "train", "score")
    }


def test_a_reader_may_go_before_the_end():
    here, there = os.pipe()
    os.close(here)
    command = [
        sys.executable,
        "-c",
        "from batch_inference.main import score; raise SystemExit(score())",
        "--help",
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdout=there, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(there)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_version(name, capsys):
    assert call(name, "--version") == 0
    assert re.fullmatch(r"humerus \d+\.\d+\.\d+\n", capsys.readouterr().out)


MISTAKES = [
    *(
        (f"humerus-{name}", [], 2, f"{required} must be given; see humerus-{name} --help")
        for name, required in {
            "phantom": "--output",
            "prepare": "--source and --layout and --data_dir",
            "train": "--data_dir and --workdir",
            "evaluate": "--model",
            "verify": "--model",
            "score": "--input and --model and --output",
            "overlay": "--scored and --output",
            "gallery": "--scored",
        }.items()
    ),
    ("humerus-wait", [], 2, "name one thing to wait for: --data_dir or --model"),
    ("humerus-explain", [], 2, "name the artifact first; see humerus-explain --help"),
    *((name, ["--inptu=x"], 2, "inptu") for name in PROGRAMS if name != "humerus-score"),
    (
        "humerus-prepare",
        ["--surce={empty}"],
        2,
        "--surce (did you mean --source?); see",
    ),
    (
        "humerus-score",
        ["--inptu={empty}", "--input={empty}", "--model={model}", "--output={out}"],
        2,
        "did you mean --input",
    ),
    (
        "humerus-evaluate",
        ["word", "--model={empty}", "--data_dir={empty}"],
        2,
        "unexpected argument 'word'",
    ),
    ("humerus-evaluate", ["--model=", "--data_dir={empty}"], 2, "--model must be given"),
    ("humerus-train", ["data", "runs/x"], 2, "unexpected argument 'data'"),
    # Out of range.
    ("humerus-phantom", ["--output={out}", "--patients=1"], 2, "patients"),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=heap", "--data_dir={out}"],
        2,
        "<mura|folders|manifest|fracatlas|graz>",
    ),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=mura", "--data_dir={out}", "--image_size=8"],
        2,
        "image_size",
    ),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=mura", "--data_dir={out}", "--test_fraction=2"],
        2,
        "test_fraction",
    ),
    (
        "humerus-train",
        ["--data_dir={empty}", "--workdir={out}", "--folds=1"],
        2,
        "--folds=1 holds nothing out",
    ),
    (
        "humerus-score",
        ["--input={empty}", "--model={empty}", "--output={out}", "--batch_size=0"],
        2,
        "batch_size",
    ),
    (
        "humerus-overlay",
        ["--scored={empty}", "--output={out}", "--min_probability=2"],
        2,
        "min_probability",
    ),
    ("humerus-gallery", ["--scored={empty}", "--label=maybe"], 2, "label"),
    # Missing, empty, a file in place of a folder.
    (
        "humerus-prepare",
        ["--source={out}", "--layout=mura", "--data_dir={out}"],
        3,
        "is not a folder",
    ),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=mura", "--data_dir={out}"],
        3,
        "holds nothing in the MURA layout",
    ),
    (
        "humerus-prepare",
        ["--source={file}", "--layout=folders", "--data_dir={out}"],
        3,
        "is not a folder",
    ),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=manifest", "--data_dir={out}"],
        3,
        "is not a file",
    ),
    ("humerus-train", ["--data_dir={empty}", "--workdir={out}"], 3, "holds no prepared data set"),
    (
        "humerus-evaluate",
        ["--model={model}", "--data_dir={empty}"],
        3,
        "holds no prepared data set",
    ),
    (
        "humerus-evaluate",
        ["--model={empty}", "--data_dir={empty}"],
        3,
        "holds no prepared data set",
    ),
    ("humerus-verify", ["--model={out}", "--images={empty}"], 2, "is not an exported model"),
    (
        "humerus-verify",
        ["--model={model}"],
        2,
        "name prepared TFRecords (--data_dir) or a folder of images (--images)",
    ),
    ("humerus-verify", ["--model={model}", "--images={empty}"], 3, "holds no image to measure on"),
    ("humerus-verify", ["--model={model}", "--images={out}"], 3, "is not a folder"),
    ("humerus-wait", ["--data_dir={empty}", "--hours=0"], 3, "holds nothing after 0 hours"),
    (
        "humerus-explain",
        ["--model={empty}", "image.png", "--output={out}"],
        2,
        "is not an exported model",
    ),
    ("humerus-explain", ["--model={model}"], 2, "name one or several images"),
    (
        "humerus-score",
        ["--input={empty}", "--model={model}", "--output={out}"],
        3,
        "nothing to score",
    ),
    (
        "humerus-score",
        ["--input={images}", "--model={empty}", "--output={out}"],
        2,
        "is not an exported model",
    ),
    (
        "humerus-score",
        ["--input={images}", "--model={model}", "--output={file}"],
        2,
        "cannot be written",
    ),
    (
        "humerus-score",
        ["--input={images}", "--model={model}", "--output={images}/x"],
        2,
        "lies inside the input",
    ),
    ("humerus-overlay", ["--scored={empty}", "--output={out}"], 3, "holds no packed maps"),
    ("humerus-gallery", ["--scored={empty}"], 3, "is not the folder of a finished run"),
    # A place for results that is none.
    ("humerus-phantom", ["--output={file}"], 2, "cannot be written"),
    (
        "humerus-prepare",
        ["--source={empty}", "--layout=mura", "--data_dir={file}"],
        2,
        "cannot be written",
    ),
    ("humerus-train", ["--data_dir={empty}", "--workdir={file}"], 2, "cannot be written"),
    *(
        ("humerus-combine", [*models, "--data_dir={empty}", f"--output={output}"], code, said)
        for models, output, code, said in (
            ([], "{out}", 2, "name two or more artifacts"),
            (["{model}"], "{out}", 2, "name two or more artifacts"),
            (["{model}", "{images}"], "{file}", 2, "cannot be written"),
            (["{model}", "{images}"], "{out}", 3, "prepared data"),
        )
    ),
    (
        "humerus-explain",
        ["--model={model}", "image.png", "--output={file}"],
        2,
        "cannot be written",
    ),
    *(
        ("humerus-evaluate", ["--model={model}", *images], 2, "name the images: --data_dir for")
        for images in (
            [],
            ["--source={empty}"],
            ["--layout=folders"],
            ["--source={empty}", "--layout=folders", "--data_dir={empty}"],
            ["--layout=folders", "--data_dir={empty}"],
        )
    ),
    (
        "humerus-evaluate",
        ["--model={model}", "--source={empty}", "--layout=folders", "--baseline={model}"],
        2,
        "a --baseline is compared on prepared data",
    ),
    (
        "humerus-evaluate",
        ["--model={model}", "--source={images}", "--layout=folders"],
        3,
        "holds no class folders with images",
    ),
    (
        "humerus-evaluate",
        ["--model={empty}", "--source={images}", "--layout=folders"],
        2,
        "is not an exported model",
    ),
    (
        "humerus-evaluate",
        ["--model={model}", "--data_dir={empty}", "--predictions={empty}"],
        2,
        "is a folder; name a file in it",
    ),
    (
        "humerus-evaluate",
        ["--model={model}", "--data_dir={empty}", "--predictions={file}/x.csv"],
        2,
        "cannot be written",
    ),
    # A broken model.
    *(
        (name, [*arguments, "--model={broken}"], 3, "is not the file that was exported")
        for name, arguments in {
            "humerus-score": ["--input={images}", "--output={out}"],
            "humerus-explain": ["{images}/0.png", "--output={out}"],
            "humerus-verify": ["--images={images}"],
        }.items()
    ),
]


def test_verify_asks_at_once_whether_it_may_write(places, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, *_: str(path) != str(places["model"]))
    flags = [f"--model={places['model']}", f"--images={places['images']}"]
    assert call("humerus-verify", *flags) == 2
    assert f"--model={places['model']} cannot be written (no right" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "arguments", "code", "said"), MISTAKES)
def test_a_mistake_is_one_line_with_the_way_out_and_the_documented_code(
    places, capsys, name, arguments, code, said
):
    assert call(name, *(argument.format(**places) for argument in arguments)) == code
    printed = capsys.readouterr()
    last = printed.err.splitlines()[-1]
    assert last.startswith(f"{name}: ") and said in last, printed.err
    assert not printed.out and "Traceback" not in printed.err
    assert not places["out"].exists()


DRY = ("humerus-prepare", "humerus-train", "humerus-score")


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"), [mistake for mistake in MISTAKES if mistake[0] in DRY]
)
def test_a_dry_run_finds_the_same_mistakes(places, capsys, name, arguments, code, said):
    assert call(name, "--dry_run", *(argument.format(**places) for argument in arguments)) == code
    assert said in capsys.readouterr().err
    assert not places["out"].exists()


def read_document(capsys) -> dict:
    """Return the JSON document that a command printed, alone on its standard output."""
    return json.loads(capsys.readouterr().out)


def test_scoring_dry_then_really_then_over_what_is_there(places, capsys):
    arguments = [
        f"--input={places['images']}",
        f"--model={places['model']}",
        f"--output={places['out']}",
        "--engine=tensorflow",
    ]
    assert call("humerus-score", *arguments, "--dry_run", "--json=-") == 0
    plan = read_document(capsys)
    assert (
        plan["dry_run"]
        and plan["inputs"] == 2
        and plan["output"] == str(places["out"])
        and not plan["earlier_results"]
    )
    assert not places["out"].exists()
    assert call("humerus-score", *arguments, f"--json={places['out']}.json") == 0
    summary = json.loads((places["out"] / "summary.json").read_text())
    assert capsys.readouterr().out.startswith("2 of 2 images scored (")
    written = json.loads(pathlib.Path(f"{places['out']}.json").read_text())
    assert (
        written == {"output": str(places["out"]), "kept": 0, **summary}
        and plan["engine"] == written["engine"]
    )
    before = sorted(places["out"].rglob("*"))
    assert call("humerus-score", *arguments, "--dry_run") == 2
    assert "add --resume" in capsys.readouterr().err
    assert call("humerus-score", *arguments, "--dry_run", "--overwrite") == 0
    assert "earlier results there would be deleted" in capsys.readouterr().out
    assert sorted(places["out"].rglob("*")) == before


def test_preparing_dry_counts_what_a_run_prepares_and_writes_nothing(places, tmp_path, capsys):
    source = small_run.write_source(tmp_path / "source")
    arguments = [
        f"--source={source}",
        "--layout=manifest",
        f"--data_dir={places['out']}",
        "--image_size=48",
    ]
    assert call("humerus-prepare", *arguments, "--dry_run", "--json=-") == 0
    plan = read_document(capsys)
    assert plan["dry_run"] and not places["out"].exists()
    assert call("humerus-prepare", *arguments, "--json=-") == 0
    done = read_document(capsys)
    assert (
        plan["splits"] == done["splits"]
        and plan["directory"] == done["directory"]
        and pathlib.Path(done["directory"]).is_dir()
    )
    assert call("humerus-prepare", *arguments, "--dry_run") == 0
    assert f"already prepared: {done['directory']}" in capsys.readouterr().out
    assert (
        call(
            "humerus-prepare",
            *arguments,
            "--dry_run",
            "--seed=1",
            "--test_fraction=0.3",
            "--image_size=64",
        )
        == 0
    )
    assert "would be written" in capsys.readouterr().out


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    return commands.prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def train_dry(data_dir, tmp_path, monkeypatch) -> Iterator[Callable[..., int]]:
    """Return what calls `humerus-train --dry_run`; check that no call writes anything."""
    workdir = tmp_path / "run"
    arguments = [
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        "--config=tests/support/small_recipe.py",
        "--dry_run",
    ]

    def dry(*more: str) -> int:
        # The recipe's settings are looked for in the command line of the process.
        monkeypatch.setattr(sys, "argv", ["humerus-train", *arguments, *more])
        return call("humerus-train", *sys.argv[1:])

    yield dry
    assert not workdir.exists()


def test_training_dry_says_what_it_would_train_and_writes_nothing(train_dry, capsys):
    assert train_dry("--json=-") == 0
    plan = read_document(capsys)
    assert plan["images"] == small_run.SPLITS and plan["positives"] == {
        name: n // 2 for name, n in small_run.SPLITS.items()
    }
    assert plan["steps"] == 4 * -(-26 // 8) and plan["networks"] == 1 and plan["state"] == "new"
    assert 0 < plan["trainable"] <= plan["parameters"]
    assert train_dry("--folds=3") == 0
    assert "would train 3 networks: tinynet (weights: none)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--config.threshold_rule=best", "threshold rule: expected one of"),
        ("--config.monitor=f1", "monitor='f1': expected auroc, loss or last"),
        (
            "--config.precision=half",
            "precision='half': expected auto, float32, mixed_bfloat16 or mixed_float16",
        ),
        ("--config.optimizer=lamb", "optimizer='lamb': expected adamw or sgd"),
        ("--config.backbone=densnet", "backbone='densnet'"),
        ("--config.weights=absent.h5", "absent.h5"),
        (
            "--config.global_batch_size=0",
            "global_batch_size=0: expected a whole number from 1 to 65536",
        ),
        (
            "--config.gradient_accumulation_steps=3",
            "batch_size=8 doesn't divide among 1 replicas with gradient_accumulation_steps=3;"
            " the nearest that do: 6 or 9",
        ),
        ("--config.epochs=-1", "epochs=-1: expected a whole number from 0 to 100000"),
        ("--config.epochs=0", "no epoch would be trained"),
        ("--config.abstain=1.5", "abstain=1.5: expected a number from 0 to below 1"),
        (
            "--config.epoch=1",
            "no setting --config.epoch (did you mean --config.epochs?); trainer/configs/default.py",
        ),
        ("--config.augmentation.rotate=1", "(did you mean --config.augmentation.rotation?)"),
        ("--config.optimizer.name=adam", "there is no setting --config.optimizer.name;"),
        (
            "--config.augmentation=none",
            "--config.augmentation is a group of settings; set one of them, such as"
            " --config.augmentation.",
        ),
        ("--epochs=1", "unknown flag --epochs (did you mean --config.epochs?)"),
        ("--batch_size=1", "unknown flag --batch_size (did you mean --config.global_batch_size?)"),
        ("--rotation=1", "unknown flag --rotation (did you mean --config.augmentation.rotation?)"),
        ("--data_dr=1", "unknown flag --data_dr (did you mean --data_dir?)"),
        ("--config.epochs=many", "--config.epochs=many: expected a whole number"),
        ("--config.epochs=", "--config.epochs=: expected a whole number"),
        ("--config.dropout=inf%", "--config.dropout=inf%: expected a number"),
        ("--config.xla=maybe", "--config.xla=maybe: expected true or false"),
        ("--folds=40", "--folds=40: too few"),
    ],
)
def test_training_dry_refuses_a_wrong_setting_in_one_sentence(train_dry, capsys, wrong, said):
    assert train_dry(wrong) in (2, 3)
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1] and not printed.out, printed.err


@pytest.mark.parametrize(
    "written",
    [["--config=smoke"], ["--config", "smoke"], ["--config", "predecessor", "--config", "smoke"]],
)
def test_a_recipe_is_named_with_or_without_an_equals_sign(written):
    from trainer.training import recipes

    program, recipe, *others = recipes.replace_names(["humerus-train", *written, "--folds", "5"])
    assert recipe.endswith("configs/smoke.py") and (program, others) == (
        "humerus-train",
        ["--folds", "5"],
    )


TERMINAL = {
    "caution": r"caution: images have warnings \(3 blank\)",
    "a line of our own": r"\d\d:\d\d:\d\d (INFO|WARNING) .*",
    "the bar": r".*\d+/\d+ \[.*images.*",
    "the result": r"\d+ of \d+ images scored .*; the results are in .*",
    "nothing": r"",
}


def on_a_terminal(command: list[str]) -> tuple[int, str]:
    """Return exit code and output of a process on a terminal of 100 columns."""
    here, there = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=there, stdout=there, stderr=there, close_fds=True
    )
    os.close(there)
    said = b""
    while True:
        try:
            more = os.read(here, 65536)
        except OSError:  # Linux says so where the last writer is gone
            break
        if not more:
            break
        said += more
    os.close(here)
    return process.wait(timeout=300), said.decode()


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_nothing_of_the_libraries_reaches_the_terminal(places, tmp_path, engine):
    folder = tmp_path / "in"
    shutil.copytree(places["images"], folder)
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "broken.tif").write_bytes(b"II*\0" + bytes(40))
    (folder / "film.dcm").write_bytes(dicom_files.dicom_file(np.full((40, 30), 900, np.uint16)))
    command = [
        sys.executable,
        "-c",
        "from batch_inference.main import score; raise SystemExit(score())",
        f"--input={folder}",
    ]
    command += [
        f"--model={places['model']}",
        f"--output={places['out']}",
        f"--engine={engine}",
        "--cam_store=parquet",
    ]
    code, said = on_a_terminal(command)
    assert code == 0, said
    lines = list(re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)))
    assert [
        line for line in lines if not any(re.fullmatch(known, line) for known in TERMINAL.values())
    ] == []
    assert "images scored" in said and "scoring " in said


WRONG_PATHS = [
    ("trainer.main", "prepare", "--source={gone} --layout=mura --data_dir={new}", 3),
    ("trainer.main", "prepare", "--source={gone}.csv --layout=manifest --data_dir={new}", 3),
    ("trainer.main", "train", "--data_dir={gone} --workdir={new}", 3),
    ("trainer.main", "evaluate", "--model={gone} --data_dir={data}", 2),
    ("trainer.main", "evaluate", "--model={model} --data_dir={gone}", 3),
    ("trainer.main", "evaluate", "--model={model} --source={gone} --layout=folders", 3),
    ("trainer.main", "evaluate", "--model={model} --baseline={gone} --data_dir={data}", 2),
    ("trainer.main", "verify", "--model={gone} --images={data}", 2),
    ("trainer.main", "verify", "--model={model} --images={gone}", 3),
    ("trainer.main", "verify", "--model={model} --images={data} --masks={gone}", 3),
    ("trainer.main", "explain", "{gone} a.png", 2),
    ("trainer.main", "explain", "{model} {gone}.png {gone}.dcm", 3),
    ("trainer.main", "train", "--data_dir={data} --workdir={new} --config.weights={gone}", 2),
    ("batch_inference.main", "score", "--input={data} --model={gone} --output={new}", 2),
    ("batch_inference.main", "score", "--input={gone} --model={model} --output={new}", 3),
    ("batch_inference.main", "gallery", "--scored={gone}", 3),
    ("batch_inference.main", "overlay", "--scored={gone} --output={new}", 3),
]
"""Module, command and flags with one wrong path, and the exit code."""

REFUSE = """
import importlib, json, resource, sys
for module, command, flags, _ in json.loads(sys.argv[1]):
    sys.argv = [f"humerus-{command}", *flags.split()]
    code = getattr(importlib.import_module(module), command)()
    taken = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({"tensorflow", "keras", "apache_beam"} & set(sys.modules))
    print(json.dumps([code, taken.ru_utime + taken.ru_stime, heavy]))
"""


def test_a_wrong_path_is_refused_before_anything_heavy_is_imported(tmp_path):
    """All in one process, which in the end has taken less than two seconds of the processor."""
    places = {name: tmp_path / name for name in ("gone", "new", "model", "data")}
    (places["model"]).mkdir()
    (places["model"] / "model.json").write_text("{}")
    places["data"].mkdir()
    (places["data"] / "dataset_info.json").write_text("{}")
    wrong = [(*case[:2], case[2].format(**places), case[3]) for case in WRONG_PATHS]
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, json.dumps(wrong)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, *_ in found] == [code for *_, code in wrong]
    assert all(not heavy for *_, heavy in found)
    assert found[-1][1] < 2.0
    said = done.stderr.splitlines()
    assert len(said) == len(wrong)
    assert [line for line in said if "gone" not in line] == []
    assert not places["new"].exists()


AFTER_AN_EXPORT = """
import sys
from collections.abc import Callable, Iterator
from trainer.program import logging_setup, telemetry
telemetry.start(["humerus-try"])
logging_setup.configure_logs()
logging_setup.import_tensorflow()
import tensorflow as tf
tf.saved_model.save(tf.Module(), sys.argv[1])
logging_setup.logging.info("of none of our modules")
exec(compile("logging.info('still logged')", logging_setup.__file__, "exec"), vars(logging_setup))
"""


@pytest.mark.parametrize("module", ["trainer.main", "batch_inference.main"])
def test_a_module_of_commands_does_not_seem_to_have_run(module):
    command = [sys.executable, "-m", module, "train", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "expected a command such as humerus-train" in done.stderr


def test_what_is_said_after_an_export_is_still_logged(tmp_path):
    """TensorFlow sets the levels of the log while it writes a SavedModel, and sets them back."""
    command = [sys.executable, "-c", AFTER_AN_EXPORT, str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO still logged\n", done.stderr), done.stderr


def test_a_result_as_json_stays_one_document_where_the_log_is_json_too(places):
    command = [
        sys.executable,
        "-c",
        "from batch_inference.main import score; raise SystemExit(score())",
        "--json=-",
    ]
    command += [
        f"--input={places['images']}",
        f"--model={places['model']}",
        f"--output={places['out']}",
        "--log_format=json",
    ]
    done = subprocess.run(
        [*command, "--dry_run"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"] == 2
    assert all(
        {"time", "severity", "message"} <= set(json.loads(line))
        for line in done.stderr.splitlines()
    )


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No flags."""


def program(outcome: BaseException | None, **options):
    """Return a command that raises an error, or returns a result."""

    @command_line.Program("humerus-try", NoOptions, **options)
    def attempt(_: NoOptions) -> command_line.Result:
        """Tries.

        humerus-try
        """
        if outcome is not None:
            raise outcome
        return command_line.Result("for people", {"for": "programs"})

    return attempt


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (errors.ConfigError("expected a"), 2, "expected a"),
        (errors.DataError("two\nlines"), 3, "two lines"),
        (artifact.ArtifactError("damaged"), 3, "damaged"),
        (
            errors.StoppedError("stopped by SIGTERM after step 3"),
            4,
            "stopped by SIGTERM after step 3",
        ),
        (KeyboardInterrupt(), 4, "stopped; run it once more"),
        (errors.TrainingDivergedError("the loss became nan"), 1, "the loss became nan"),
        (errors.RunnerError("the runner gave up"), 1, "the runner gave up"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (
            tf.errors.PermissionDeniedError(None, None, "no right to read gs://b/o"),
            1,
            "no right to read gs://b/o",
        ),
    ],
)
def test_each_end_has_its_code_and_one_line(capsys, outcome, code, said):
    assert program(outcome, when_stopped="run it once more")(["humerus-try"]) == code
    printed = capsys.readouterr()
    assert printed.err == f"humerus-try: {said}\n" and not printed.out


def test_our_own_mistakes_keep_their_trace():
    with pytest.raises(ZeroDivisionError):
        program(ZeroDivisionError())(["humerus-try"])


def test_a_result_goes_where_it_is_asked_for(tmp_path, capsys):
    attempt = program(None, write=lambda path, text: pathlib.Path(path).write_text(text))
    assert attempt(["humerus-try"]) == 0 and capsys.readouterr().out == "for people\n"
    assert attempt(["humerus-try", f"--json={tmp_path}/result.json"]) == 0
    assert capsys.readouterr().out == "for people\n"
    assert json.loads((tmp_path / "result.json").read_text()) == {"for": "programs"}
    assert attempt(["humerus-try", "--json=-"]) == 0 and read_document(capsys) == {
        "for": "programs"
    }


@pytest.mark.parametrize(("place", "said"), [("", "is a folder"), ("file/x", "cannot be written")])
def test_a_result_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, place, said):
    (tmp_path / "file").touch()
    attempt = program(AssertionError("it worked"))
    assert attempt(["humerus-try", f"--json={tmp_path / place}"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"humerus-try: --json={tmp_path}") and said in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--predictions={0}/rows.csv --json={0}/rows.csv", "what --predictions names"),
        ("--predictions={0}/rows.csv --json={0}/./rows.csv", "what --predictions names"),
        ("--predictions={0}/labels.csv", "what --source names"),
        ("--json={0}/labels.csv", "what --source names"),
        ("--predictions={0}/model/model.json", "what --model names, or a part of it"),
        ("--json={0}/model/new.json", "what --model names, or a part of it"),
    ],
)
def test_a_result_never_overwrites_what_another_flag_names(tmp_path, capsys, given, said):
    images = [f"--model={tmp_path}/model", f"--source={tmp_path}/labels.csv", "--layout=manifest"]
    assert call("humerus-evaluate", *images, *given.format(tmp_path).split()) == 2
    assert f"would overwrite {said}; choose another file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def get_config(:", "SyntaxError: invalid syntax"),
        (b"\x89PNG\0", "SyntaxError"),
        (b"other = 1", "it has no get_config()"),
        (b"def get_config(): return {}", "its get_config() returns a dict"),
        (b"def get_config(): pass", "its get_config() returns a NoneType"),
        (
            b"def get_config(): return 1 / 0",
            "line 1, `def get_config(): return 1 / 0`: ZeroDivisionError: division by zero",
        ),
        (
            b"from trainer.configs.humerus import get_config as base\n"
            b"def get_config():\n    config = base()\n    config.epoch = 3\n    return config\n",
            'line 4, `config.epoch = 3`: AttributeError: Key "epoch" does not exist',
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path, capsys, content, said):
    (tmp_path / "mine.py").write_bytes(content)
    config = f"--config={tmp_path}/mine.py"
    assert call("humerus-train", f"--data_dir={tmp_path}", f"--workdir={tmp_path}/w", config) == 2
    printed = capsys.readouterr().err
    assert f"{config} is no recipe ({said}" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("content", ["--dry_run".encode("utf-16"), b"--workdir=\xff"])
def test_a_flagfile_that_is_not_text_is_one_sentence(tmp_path, capsys, content):
    (tmp_path / "train.flags").write_bytes(content)
    assert call("humerus-train", f"--flagfile={tmp_path}/train.flags") == 2
    printed = capsys.readouterr().err
    assert f"{tmp_path}/train.flags is not text in UTF-8" in printed and printed.count("\n") == 1


def test_the_home_folder_may_stand_in_words_that_are_no_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("humerus-explain", "~/model", "~/a.png") == 2
    assert f"{tmp_path}/model is not an exported model" in capsys.readouterr().err
