"""Signals that come while a file decodes that never ends."""

import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from trainer.errors import EXIT_STOPPED
from trainer.program import signals

ROOT = pathlib.Path(__file__).resolve().parents[3]
HANGING = """
import sys
from trainer.workers import imaging, pool
pool.SECONDS = 60.0
pool.Pool.__init__.__defaults__ = (None, pool.MEMORY, 60.0)
imaging.Imaging.DECODE = "tests.support.worker_tasks:loop_for_ever"
from trainer.main import prepare
sys.exit(prepare())
"""


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_signal_ends_the_preparation_while_a_file_decodes(tmp_path, number):
    source = tmp_path / "in"
    for index, label in enumerate(["negative", "positive"] * 3):
        (source / label).mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 40), 40 * index, np.uint8)
        cv2.imwrite(str(source / label / f"{index}.png"), pixels)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HANGING,
            f"--source={source}",
            "--layout=folders",
            f"--data_dir={tmp_path}/out",
            "--image_size=32",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(source.rglob("decoding")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    # Ten seconds are promised; beyond them is for a busy machine.
    _, said = process.communicate(timeout=10 + 5)
    assert process.returncode == EXIT_STOPPED, said
    assert "stopped" in said.splitlines()[-1]
