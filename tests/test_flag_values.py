"""Every flag of every command: a bad value is one sentence, exit code 2, and writes nothing."""

import importlib
import pathlib
import re

import pytest
from absl import flags

from trainer.program import command_line, flag_types, telemetry

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = dict(
    re.findall(r'"(humerus-\w+) = ([\w.]+:\w+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
)
NO_NUMBERS = ("nan", "inf", "-inf", "1e999", "-1", "1000000000000", "", "banana", "0x", "\x1b[2J")
NO_CHOICES = ("nan", "", "banana", "\x1b[2J")
NO_PATHS = ("foo://bar", "://", "\x1b[2J://x")
NO_UTF8 = ("\udcff",)
ANY_BYTES = {"scored"}
"""Flags whose paths may be other than UTF-8."""


def command(name: str):
    module, function = PROGRAMS[name].split(":")
    return getattr(importlib.import_module(module), function)


def own_flags(name: str) -> list[flags.Flag]:
    """Return the flags that a program defines, without running it."""
    found: list[flags.Flag] = []

    def note(self, values, argv):
        self.define_flags(values)
        found.extend(flag for group in values.flags_by_module_dict().values() for flag in group)
        raise command_line.ConfigError("only its flags were wanted")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command_line.Program, "parse", note)
        assert command(name)([name]) == 2
    return found


def bad_values(flag: flags.Flag) -> tuple[str, ...]:
    if isinstance(flag.parser, flags.FloatParser | flags.IntegerParser):
        return NO_NUMBERS
    if isinstance(flag.parser, flags.EnumParser):
        return NO_CHOICES
    if isinstance(flag.parser, flags.BooleanParser):
        return ("banana", "nan", "2", "\x1b[2J")
    if not isinstance(flag.parser, flag_types.PathParser):
        return ()
    return NO_PATHS if flag.name in ANY_BYTES else NO_PATHS + NO_UTF8


OF_EVERY_PROGRAM = [
    flag for group in telemetry.FLAGS.flags_by_module_dict().values() for flag in group
]
CASES = [
    (name, flag.name, value)
    for name in PROGRAMS
    for flag in [*own_flags(name), *OF_EVERY_PROGRAM]
    for value in bad_values(flag)
]


def test_there_are_flags_of_every_kind():
    assert {"batch_size", "threshold", "hours", "layout", "output", "metrics_port"} <= {
        flag for _, flag, _ in CASES
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_number_has_a_finite_range(name):
    """The parsers of numbers are those of `flag_types`, which have both bounds."""
    for flag in own_flags(name):
        if isinstance(flag.parser, flags.FloatParser | flags.IntegerParser):
            assert type(flag.parser).__module__ == flag_types.__name__, flag.name
            assert flag.parser.lower_bound < flag.parser.upper_bound < 2**32


@pytest.mark.parametrize(("name", "flag", "value"), CASES, ids=repr)
def test_a_bad_value_is_a_mistake_of_the_command_line(
    tmp_path, monkeypatch, capsys, name, flag, value
):
    monkeypatch.chdir(tmp_path)
    assert command(name)([name, f"--{flag}={value}"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{name}: ") and printed.err.count("\n") == 1
    assert flag in printed.err and "\x1b" not in printed.err and not printed.out
    assert not list(tmp_path.iterdir())


LOCAL = {"sweep"}
"""Flags whose files can't lie in a bucket."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_tilde_after_the_equals_sign_is_the_home_folder(monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/somebody")
    paths = [flag for flag in own_flags(name) if isinstance(flag.parser, flag_types.PathParser)]
    assert paths
    assert {flag.parser.parse("~/x") for flag in paths} == {"/home/somebody/x"}
    remote = [flag for flag in paths if flag.name not in LOCAL]
    assert {flag.parser.parse("gs://b/~") for flag in remote} == {"gs://b/~"}


@pytest.mark.parametrize("workers", ["-1", "1000000000", "banana", "nan", ""])
def test_beam_options_are_checked_too(tmp_path, capsys, workers):
    flags_ = [f"--{name}={tmp_path}/absent" for name in ("input", "model", "output")]
    assert command("humerus-score")(["score", *flags_, f"--direct_num_workers={workers}"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and not list(tmp_path.iterdir())
