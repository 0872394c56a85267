"""What the log and the dry run say of a run's epochs."""

import logging
import math

import pytest

from trainer.training import dry_run, progress

ROW = dict.fromkeys(
    ("loss", "accuracy", "val_loss", "val_accuracy", "val_auroc", "learning_rate"), 0.5
)


@pytest.mark.parametrize("speed", [12.0, math.nan])
def test_an_epoch_of_which_no_step_was_measured_has_a_line_without_a_speed(tmp_path, caplog, speed):
    reporter = progress.ProgressReporter(str(tmp_path), epochs=2, is_chief=True)
    measured = {"epoch": 1, "images_per_second": speed, "input_wait": speed / 100}
    with caplog.at_level(logging.INFO):
        reporter.end_epoch({**ROW, **measured}, 4, improved=True)
    reporter.close()
    (line,) = (record.getMessage() for record in caplog.records if "epoch 1/2" in record.message)
    assert "nan" not in line and line.endswith("best so far")
    assert ("12.0 images/s  input wait 12%" in line) == (speed == 12)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (0, "6 epochs of 10 steps\n"),
        (2, "6 epochs of 10 steps (2 of the head alone, then 4)\n"),
    ],
)
def test_the_dry_run_splits_the_epochs(head, said):
    planned = {
        "workdir": "run",
        "images": {"train": 80},
        "positives": {"train": 40},
        "backbone": "densenet121",
        "weights": "imagenet",
        "image_size": 320,
        "networks": 1,
        "parameters": 9,
        "trainable": 5,
        "epochs": 6,
        "head_epochs": head,
        "steps": 60,
        "state": "new",
    }
    assert said in dry_run.format_plan(planned)
