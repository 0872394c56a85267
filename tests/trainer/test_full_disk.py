"""Commands of the trainer whose disk is full: one sentence, and nothing half-written.

Those of training are in `training/test_storage_faults.py`, those of scoring in
`batch_inference/test_faults.py`.
"""

import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.support import small_disk
from trainer import main
from trainer.errors import EXIT_FAILURE

KIBIBYTES = 200


@pytest.fixture
def disk(tmp_path):
    with small_disk.mounted(tmp_path / "disk", KIBIBYTES) as disk:
        yield disk


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """Return class folders whose prepared images take more than the disk holds."""
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (160, 160), np.uint8)
        path = tmp_path / "in" / ("positive" if index % 2 else "negative") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "in"


def test_preparing(disk, source, capfd):
    flags = [f"--source={source}", "--layout=folders", "--image_size=160"]
    assert main.prepare(["humerus-prepare", *flags, f"--data_dir={disk}/data"]) == EXIT_FAILURE
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith(f"humerus-prepare: {disk}/data/radiographs")
    assert "can't be written (the disk is full); remove the cause" in said
    assert "Traceback" not in said
    assert [path for path in disk.rglob("*") if path.is_file()] == []


def test_preparing_without_any_room(disk, source, capfd):
    small_disk.fill(disk, KIBIBYTES)
    flags = [f"--source={source}", "--layout=folders", "--image_size=160"]
    assert main.prepare(["humerus-prepare", *flags, f"--data_dir={disk}/data"]) == EXIT_FAILURE
    assert "can't be written (the disk is full); remove the cause" in capfd.readouterr().err


def test_simulating(disk, capfd):
    flags = [f"--output={disk}/simulated", "--patients=8"]
    assert main.phantom(["humerus-phantom", *flags]) == EXIT_FAILURE
    said = capfd.readouterr().err
    assert f"{disk}/simulated/MURA-v1.1 can't be written (No space left on device)" in said
    assert [path for path in disk.rglob("*") if path.is_file()] == []
