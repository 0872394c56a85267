"""Make a command from a function: parse its flags, print help and results, return an exit code.

@Program("humerus-count", required=("input",))
def count(values: flags.FlagValues) -> Main:
    \"\"\"Counts radiographs.

    humerus-count --input=radiographs
    \"\"\"
    define_flags(Options, values)
    define_json(values)

    def main() -> Result: ...

    return main
"""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import os
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from absl import flags

from trainer import storage
from trainer.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_DONE,
    EXIT_FAILURE,
    EXIT_STOPPED,
    ConfigError,
    DataError,
    HostLostError,
    RunnerError,
    StoppedError,
    TrainingDivergedError,
)
from trainer.program import flag_types, json_log, logging_setup, signals, telemetry

_HELP = {"--help", "-h", "-help", "--helpshort", "--helpfull"}
_NAME_COLUMNS = 24
_WIDEST = 110


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a program: `text` for people, `document` (of JSON types) for programs."""

    text: str
    document: Any


Main = Callable[..., Result | None]
"""The work of a program; it takes the arguments that are not flags."""


def define_json(values: flags.FlagValues) -> None:
    """Define the flag --json, for a program that returns a `Result`."""
    flag_types.define_path(
        "json",
        None,
        "File for the result as JSON; - prints JSON instead of text.",
        values,
        flag_types.BEAM_SCHEMES,
    )


def define_dry_run(values: flags.FlagValues) -> flags.FlagHolder:
    """Define the flag --dry_run and return it; the program implements it."""
    text = "Check the command line and the inputs, print what would be done, and write nothing."
    return flags.DEFINE_bool("dry_run", False, text, flag_values=values)


def check_writable(flag: str, folder: str) -> None:
    """Raise `ConfigError` if a flag names a local folder that cannot be made or written to."""
    if storage.is_remote(folder):
        return
    given = pathlib.Path(folder).absolute()
    place = next(place for place in (given, *given.parents) if os.path.lexists(place))
    if not place.is_dir():
        raise ConfigError(
            f"--{flag}={folder} cannot be written (Not a directory: {place}); choose another folder"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--{flag}={folder} cannot be written (no right to write in {place}); "
            "choose another folder"
        )


@dataclasses.dataclass(frozen=True)
class Program:
    """Makes a command of a function that defines flags and returns the work to do.

    Attributes:
      name: the name of the command, such as `humerus-train`.
      required: names of the flags that must be given.
      takes_arguments: pass arguments that are not flags to the work; otherwise they are an error.
      passes_unknown_flags: pass undefined flags to the work too; otherwise they are an error.
      tensorflow: import TensorFlow without its messages before the work imports it.
      rewrite_argv: changes the command line before it is parsed.
      when_stopped: what a user may do after a signal ended the command.
      write: writes a text to a path, local or in a bucket, for --json.
    """

    name: str
    required: tuple[str, ...] = ()
    takes_arguments: bool = False
    passes_unknown_flags: bool = False
    tensorflow: bool = False
    rewrite_argv: Callable[[list[str]], list[str]] = list
    when_stopped: str = "run again"
    write: Callable[[str, str], None] | None = None

    def __call__(self, define: Callable[[flags.FlagValues], Main]) -> Callable[..., int]:
        @functools.wraps(define)
        def command(argv: Sequence[str] | None = None) -> int:
            given = list(sys.argv if argv is None else argv)
            if "--version" in given:
                _print(f"humerus {importlib.metadata.version('humerus')}\n", sys.stdout)
                return EXIT_DONE
            if asked_for := _HELP & set(given):
                _print(self._format_help(define, full="--helpfull" in asked_for) + "\n", sys.stdout)
                return EXIT_DONE
            with signals.interrupt_on_signals(self.name, self.when_stopped) as interruption:
                try:
                    return self._run(define, given)
                except (Exception, KeyboardInterrupt) as error:
                    # A runner may turn the interruption into an error of its own.
                    interrupted = interruption.arrived or isinstance(error, KeyboardInterrupt)
                    return self._report_error(KeyboardInterrupt() if interrupted else error)

        # Test runners would take the signature of the wrapped function for the command's.
        del command.__wrapped__
        return command

    def _run(self, define: Callable[[flags.FlagValues], Main], argv: list[str]) -> int:
        argv = self.rewrite_argv(telemetry.start(argv))
        logging_setup.configure_logs()
        values = _make_flag_values()
        main, arguments = self._parse(define, values, argv)
        if self.tensorflow:
            logging_setup.import_tensorflow()
        self._write_result(main(*arguments), values["json"].value if "json" in values else None)
        return EXIT_DONE

    def _parse(
        self, define: Callable[[flags.FlagValues], Main], values: flags.FlagValues, argv: list[str]
    ) -> tuple[Main, list[str]]:
        """Define the flags, parse the command line into them, return the work and its arguments."""
        try:
            main = define(values)
            _, *arguments = values(argv, known_only=self.passes_unknown_flags)
        except flags.Error as error:
            raise ConfigError(_describe(error)) from error
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"a setting of the recipe is wrong: {_describe(error)}") from error
        if missing := [flag for flag in self.required if values[flag].value in (None, "")]:
            raise ConfigError(
                f"{' and '.join(f'--{flag}' for flag in missing)} must be given; "
                f"see {self.name} --help"
            )
        if arguments and not (self.takes_arguments or self.passes_unknown_flags):
            raise ConfigError(
                f"unexpected argument {arguments[0]!r}; flags have the form --name=value, "
                f"see {self.name} --help"
            )
        return main, arguments

    def _write_result(self, result: Result | None, json_path: str | None) -> None:
        if result is None:
            return
        document = json.dumps(result.document, indent=2) + "\n"
        if json_path == "-":
            _print(document, json_log.unwrap(sys.stdout))
            return
        _print(logging_setup.escape_control_characters(result.text) + "\n", sys.stdout)
        if json_path and self.write:
            self.write(json_path, document)

    def _report_error(self, error: BaseException) -> int:
        """Print an error in one sentence and return its exit code; raise errors of our own code."""
        error = storage.translate_error(error)
        codes: dict[type[BaseException], int] = {
            ConfigError: EXIT_CONFIG,
            flags.Error: EXIT_CONFIG,
            DataError: EXIT_DATA,
            StoppedError: EXIT_STOPPED,
            KeyboardInterrupt: EXIT_STOPPED,
            **dict.fromkeys(
                (TrainingDivergedError, HostLostError, RunnerError, OSError), EXIT_FAILURE
            ),
        }
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
        if code is None:
            raise error
        message = " ".join(_describe(error).splitlines())
        if isinstance(error, KeyboardInterrupt):
            message = f"stopped; {self.when_stopped}"
        if code == EXIT_STOPPED and telemetry.has_probe_failed():
            # A scheduler must count this as a failure. Otherwise it could restart it forever.
            code, message = EXIT_FAILURE, f"the liveness probe saw no progress; {message}"
        sys.stderr.write(logging_setup.escape_control_characters(f"{self.name}: {message}") + "\n")
        return code

    def _format_help(self, define: Callable[[flags.FlagValues], Main], full: bool) -> str:
        values = _make_flag_values()
        define(values)
        parts = [inspect.cleandoc(define.__doc__ or ""), self._describe_flags(values)]
        if full:
            parts += ["Flags of every program:", self._describe_flags(telemetry.FLAGS)]
            parts += [
                "--flagfile=FILE reads flags from a file, one per line. "
                "--version prints the version."
            ]
        else:
            parts += [
                f"{self.name} --helpfull also shows the flags of every program: logs as JSON, "
                "heartbeat, metrics."
            ]
        return "\n\n".join(parts)

    def _describe_flags(self, values: flags.FlagValues) -> str:
        """Return a paragraph for each flag, as wide as the terminal."""
        width = min(shutil.get_terminal_size().columns, _WIDEST)
        wrapper = textwrap.TextWrapper(
            width, subsequent_indent=" " * (_NAME_COLUMNS + 2), break_on_hyphens=False
        )
        lines = []
        for flag in (
            flag for of_module in values.flags_by_module_dict().values() for flag in of_module
        ):
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            notes = (
                ["|".join(flag.parser.enum_values)]
                if isinstance(flag.parser, flags.EnumParser)
                else []
            )
            notes += ["required"] if flag.name in self.required else []
            notes += (
                [f"default {flag.serialize().partition('=')[2]}"]
                if flag.default and not flag.boolean
                else []
            )
            # absl adds the choices before a help text, and after it that the flag may be repeated.
            text = re.sub(r"^<[^>]*>: |;\n\s+repeat this.*", "", flag.help)
            text = f"{text} ({'; '.join(notes)})" if notes else text
            lines.append(wrapper.fill(f"  {name:<{_NAME_COLUMNS}}{text}"))
        return "\n".join(lines)


def _print(text: str, stream: TextIO) -> None:
    """Write a text, unless its reader has ended, as `head` does."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Otherwise Python would report the broken pipe once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _describe(error: BaseException) -> str:
    """Return the message of an error, of absl's and ml_collections' too."""
    if isinstance(error, flags.CantOpenFlagFileError):
        return f"--flagfile cannot be read: {error.__context__}"
    # The text of a KeyError is its argument in quotes.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _make_flag_values() -> flags.FlagValues:
    """Return flags of one call, so that programs in one process may share names of flags."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    return values
