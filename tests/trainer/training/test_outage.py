"""Storage that doesn't answer when a command begins: the same command, later, may do."""

import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.support import bucket_server, small_run
from tests.support.commands import ROOT
from trainer import wait
from trainer.errors import EXIT_DATA, EXIT_FAILURE, DataError

COMMANDS = """
import json, sys
from trainer import main
print([getattr(main, name)([name, *flags]) for name, *flags in json.loads(sys.argv[1])])
"""


@pytest.mark.slow
def test_what_to_do_is_one_sentence_and_no_scheduler_gives_up(tmp_path):
    with bucket_server.running(tmp_path) as server:
        uri = server.make_bucket("training")
        source = small_run.write_source(tmp_path / "source")
        for path in source.parent.iterdir():
            server.put("training", f"source/{path.name}", path.read_bytes())
        server.faults.down = ""
        to = f"--data_dir={uri}/data"
        commands = [
            ["prepare", f"--source={uri}/source", "--layout=mura", to],
            ["prepare", f"--source={uri}/source", "--layout=folders", to],
            ["prepare", f"--source={uri}/source/{source.name}", "--layout=manifest", to],
            [
                "prepare",
                f"--source={source}",
                "--layout=manifest",
                to,
                f"--image_size={small_run.SIZE}",
            ],
            ["train", to, f"--workdir={uri}/run"],
            ["evaluate", to, f"--model={uri}/run/artifact"],
            ["wait", to, "--hours=0"],
        ]
        environment = {
            **os.environ,
            **server.tensorflow_environment,
            "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(commands)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    *failures, waiting = [line for line in done.stderr.splitlines() if line.startswith("humerus-")]
    assert json.loads(done.stdout.splitlines()[-1]) == [EXIT_FAILURE] * 6 + [EXIT_DATA]
    for said in failures:
        assert (
            "the storage does not answer (" in said
            and "503" in said
            and said.endswith("start the same command again")
        )
    assert "holds nothing after 0 hours" in waiting


@pytest.mark.parametrize("kind", ["data_dir", "model"])
def test_waiting_outlasts_an_outage(monkeypatch, kind):
    answers = [
        tf.errors.AbortedError(None, None, "503"),
        tf.errors.UnavailableError(None, None, "cut"),
        None,
    ]

    def exists(_):
        if error := answers.pop(0):
            raise error
        return True

    monkeypatch.setattr(tf.io.gfile, "exists", exists)
    monkeypatch.setattr(wait, "INTERVAL", 0.01)
    wait.wait(**{"data_dir": None, "model": None} | {kind: "gs://bucket/x"}, seconds=60)
    assert not answers


def test_waiting_says_what_is_wrong_with_the_address(monkeypatch):
    monkeypatch.setattr(tf.io.gfile, "exists", lambda _: False)
    with pytest.raises(DataError, match="holds nothing"):
        wait.wait(None, "gs://bucket/x", 0)
