"""A path that the system cannot look up is absent: refused before anything heavy is imported."""

import os
import pathlib

import pytest

from trainer import main
from trainer.errors import ConfigError, DataError
from trainer.program import path_checks

LONG = "a" * 300


@pytest.mark.parametrize(
    ("check", "arguments", "error"),
    [
        (path_checks.check_artifact, (), ConfigError),
        (path_checks.check_weights, (), ConfigError),
        (path_checks.check_input, (), DataError),
        (path_checks.check_images, (), DataError),
        (path_checks.check_scored, (), DataError),
        (path_checks.check_source, ("folders",), DataError),
        (path_checks.check_source, ("manifest",), DataError),
    ],
)
@pytest.mark.parametrize("path", [LONG, f"{LONG}/b", "nul\0byte", "absent"], ids=len)
def test_what_cannot_be_looked_up_is_absent(check, arguments, error, path):
    if check is path_checks.check_input and not path.isprintable():
        return  # the scorer's own sentence says what is wrong with such a name
    with pytest.raises(error):
        check(path, *arguments)


def test_prepared_data_under_a_name_that_is_too_long(tmp_path, capsys):
    flags = [f"--data_dir={LONG}", f"--workdir={tmp_path}/run"]
    assert main.train(["humerus-train", *flags]) == 3
    assert "holds no prepared data set" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["device", "pipe", "link", "dangling link"])
def test_only_a_file_is_replaced(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "device":
        place = pathlib.Path("/dev/null")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "target")
        if kind == "link":
            (tmp_path / "target").write_text("kept")
    with pytest.raises(ConfigError, match=r"^--json=.* is a link, a device or a pipe; name a file"):
        path_checks.check_file_writable("json", str(place))


def test_a_file_may_be_replaced_or_new(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    for name in ("old.json", "new.json"):
        path_checks.check_file_writable("json", str(tmp_path / name))


def test_the_message_names_what_was_given(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"^--json={tmp_path}/file/x.json cannot be written"):
        path_checks.check_file_writable("json", f"{tmp_path}/file/x.json")
