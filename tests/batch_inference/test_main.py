"""The command as a user starts it."""

import pathlib
import subprocess
import sys

import pytest

from batch_inference import main
from tests.batch_inference.conftest import json_rows

PROGRAM = pathlib.Path(sys.executable).with_name("humerus-score")


@pytest.mark.skipif(
    not PROGRAM.exists(), reason="the console program is not installed beside this Python"
)
def test_the_program_scores_a_folder_and_says_where_everything_is(model, radiographs, tmp_path):
    output = tmp_path / "out"
    done = subprocess.run(
        [
            PROGRAM,
            "--runner",
            "FnApiRunner",
            f"--input={radiographs}",
            f"--model={model}",
            f"--output={output}",
            "--cam=heatmap",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("14 of 14 images scored (")
    assert done.stdout.strip().endswith(f"with openvino/float32; the results are in {output}")
    assert len(json_rows(output, "predictions")) == 14
    # One line of our own; libraries keep quiet.
    assert [line for line in done.stderr.splitlines() if "scoring " not in line] == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "--input and --model and --output must be given"),
        (["--input=x", "--model=x", "--outptu=x"], 2, "--outptu (did you mean --output?)"),
        (["radiographs", "--model=x"], 2, "unexpected argument 'radiographs'"),
        (["--runner", "FlinkRunner"], 2, "--input and --model and --output must be given"),
        (["--engine=abacus"], 2, "value should be one of <auto|tensorflow|openvino|onnx>"),
        (["--batch_size=0"], 2, "batch_size"),
        (["--format=csv,xlsx"], 2, "one or several of jsonl,csv,parquet"),
        (["--input=/nowhere", "--model={model}", "--output={out}"], 3, "nothing to score"),
        (["--input={model}", "--model=/nowhere", "--output={out}"], 2, "no model.json"),
        (
            ["--input={model}", "--model={model}", "--output={out}", "--inptu=x"],
            2,
            "unknown option --inptu",
        ),
        (
            ["--input=/\udcff", "--model={model}", "--output={out}"],
            2,
            "--input=/\\udcff: expected a path in UTF-8; rename",
        ),
        (
            ["--input={model}", "--model={model}", "--output={out}/\udcff"],
            2,
            "expected a path in UTF-8; rename",
        ),
        (
            ["{model}", "--input={model}", "--model={model}", "--output={out}"],
            2,
            "unexpected argument",
        ),
        (
            ["--input={model}", "--model={model}", "--output={out}", "--dry-run"],
            2,
            "unknown option --dry-run (did you mean --dry_run?)",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(model, tmp_path, capsys, arguments, code, sentence):
    argv = [
        "humerus-score",
        *(argument.format(model=model, out=tmp_path / "out") for argument in arguments),
    ]
    assert main.score(argv) == code
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.startswith("humerus-score: ") and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def test_help_begins_with_an_example(capsys):
    assert main.score(["humerus-score", "--help"]) == 0
    said = capsys.readouterr().out
    assert "humerus-score --input=radiographs " in said[:300]
    assert "--[no]overwrite" in said and "--flagfile" not in said


def test_the_other_command_has_its_own_flags_and_help(capsys, tmp_path):
    assert main.overlay(["humerus-overlay", "--help"]) == 0
    assert "humerus-overlay --scored=" in capsys.readouterr().out[:200]
    assert main.overlay(["humerus-overlay", f"--scored={tmp_path}"]) == 2
    assert (
        capsys.readouterr().err
        == "humerus-overlay: --output must be given; see humerus-overlay --help\n"
    )
    assert main.overlay(["humerus-overlay", f"--scored={tmp_path}", f"--output={tmp_path}"]) == 3
    assert "holds no packed maps; score with --cam_store=parquet first" in capsys.readouterr().err
    assert (
        main.overlay(
            [
                "humerus-overlay",
                "--direct_num_workers=2",
                f"--scored={tmp_path}",
                f"--output={tmp_path}",
            ]
        )
        == 2
    )
    assert (
        "unknown flag --direct_num_workers; see humerus-overlay --help" in capsys.readouterr().err
    )
