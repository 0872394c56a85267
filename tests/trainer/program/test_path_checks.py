"""A path that the system cannot look up is absent: refused before anything heavy is imported."""

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
