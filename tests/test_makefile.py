"""`make` repairs an environment that an earlier call left incomplete."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def leave_without_pip(folder: pathlib.Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)


def leave_without_python(folder: pathlib.Path) -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/nowhere/python")


@pytest.mark.slow
@pytest.mark.parametrize("leave", [leave_without_pip, leave_without_python])
def test_an_incomplete_environment_is_made_anew(tmp_path, leave):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("setup.py", "requirements.lock"):
        (tmp_path / name).touch()  # nothing is installed
    leave(tmp_path / ".venv")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    environment["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "INSTALL=true", "EXTRAS=dev", ".venv/.installed-dev"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pip = [tmp_path / ".venv" / "bin" / "python", "-m", "pip", "--version"]
    assert str(tmp_path) in subprocess.check_output(pip, text=True)
