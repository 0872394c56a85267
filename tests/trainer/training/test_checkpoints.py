"""A checkpoint whose commit mark is damaged is none: the one before it is restored."""

import pytest
import tensorflow as tf

from trainer.errors import DataError
from trainer.training.checkpoints import Checkpoints


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, of the values 1 and 2."""
    variable = tf.Variable(0.0)
    checkpoints = Checkpoints(str(tmp_path), [variable], keep=2)
    for step in (1, 2):
        variable.assign(step)
        checkpoints.save(step, {"step": step})
    variable.assign(9.0)
    return checkpoints, variable, tmp_path


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", "3", '["step"]'])
def test_a_damaged_mark_is_skipped(saved, content):
    checkpoints, variable, folder = saved
    (folder / "ckpt-00000002.json").write_text(content)
    assert checkpoints.restore() == {"step": 1} and variable.numpy() == 1


def test_only_damaged_marks_are_an_error(saved):
    checkpoints, _, folder = saved
    for mark in folder.glob("*.json"):
        mark.write_text("{}")
    with pytest.raises(DataError, match=r"no checkpoint in .* can be read; remove"):
        checkpoints.restore()
