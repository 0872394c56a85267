"""Test commands whose standard streams are closed, or lead to a full disk."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
TRY = """
import dataclasses, os, sys
from trainer import errors
from trainer.program import command_line

@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass

@command_line.Program("humerus-try", NoOptions)
def attempt(_):
    "Tries."
    sys.stderr.isatty()
    for number in range(3):  # a child process has them too
        assert os.get_inheritable(number)
    opened = open(os.devnull)
    assert opened.fileno() > 2
    failure = errors.DataError("wrong") if "FAIL" in os.environ else None
    return command_line.Result("done", {}, failure)

sys.exit(attempt())
"""


def run(redirection: str, argument: str = "", fail: bool = False) -> tuple[int, str, str]:
    """Run a command in a shell with a redirection; return its exit code and what it printed."""
    line = f'{"FAIL=1 " if fail else ""}"$0" -c "$1" $2 {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, TRY, argument],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize("fail", [False, True])
def test_a_command_ends_with_its_code_whatever_streams_it_lacks(redirection, fail):
    said = "" if ">&-" in redirection.split() else "done\n"
    complaint = "humerus-try: wrong\n" if fail and "2>" not in redirection else ""
    assert run(redirection, fail=fail) == (3 if fail else 0, said, complaint)


@pytest.mark.parametrize("argument", ["", "--help", "--version", "--json=-"])
def test_a_full_disk_behind_the_output_is_one_sentence(argument):
    code, _, complaint = run(">/dev/full", argument)
    assert code == 1
    assert complaint == (
        "humerus-try: the standard output can't be written (No space left on device); "
        "remove the cause, or send the output to another place\n"
    )
