"""A console program: its flags and help, what it prints, and the exit code that it ends with. One way for all of them.

@Program("humerus-count", required=("input",))
def count(values: flags.FlagValues) -> Main:
    \"\"\"Counts radiographs.

    humerus-count --input=radiographs
    \"\"\"
    folder = flags.DEFINE_string("input", None, "Folder to count in.", required=True, flag_values=values)
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
    """What a program tells at its end: `text` for people, `document` (JSON-able) for programs."""

    text: str
    document: Any


Main = Callable[..., Result | None]
"""Gets the words of the command line that are no flags, does the work."""


def define_json(values: flags.FlagValues) -> None:
    """Gives a program that returns a `Result` the flag --json."""
    flag_types.define_path(
        "json",
        None,
        "File for the result as JSON; - prints it instead of the text.",
        values,
        flag_types.BEAM_SCHEMES,
    )


def define_dry_run(values: flags.FlagValues) -> flags.FlagHolder:
    """Gives a program the flag --dry_run, which it heeds itself."""
    told = "Check the command line and the inputs, say what would be done, and write nothing."
    return flags.DEFINE_bool("dry_run", False, told, flag_values=values)


def check_writable(flag: str, folder: str) -> None:
    """Raises `ConfigError` where the folder that a flag names for results is none, or can't be made or written to; local ones only."""
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
            f"--{flag}={folder} cannot be written (no right to write in {place}); choose another folder"
        )


@dataclasses.dataclass(frozen=True)
class Program:
    """Makes a console program of a function that defines flags and returns what to do with them.

    Attributes:
      name: as `humerus-train`.
      required: names of the flags that must be given.
      takes_words: words that are no flags are handed to the main function, one by one; else they are an error.
      passes_on: flags that nobody defined are handed on with those words; else they are an error.
      tensorflow: the main function imports TensorFlow, which therefore is imported quietly first.
      rewritten: what becomes of the command line before it is parsed.
      when_stopped: what a user may do after a signal ended the program.
      write: writes a text to a path, local or in a bucket, for --json.
    """

    name: str
    required: tuple[str, ...] = ()
    takes_words: bool = False
    passes_on: bool = False
    tensorflow: bool = False
    rewritten: Callable[[list[str]], list[str]] = list
    when_stopped: str = "run again"
    write: Callable[[str, str], None] | None = None

    def __call__(
        self, define: Callable[[flags.FlagValues], Main]
    ) -> Callable[[Sequence[str] | None], int]:
        @functools.wraps(define)
        def command(argv: Sequence[str] | None = None) -> int:
            given = list(sys.argv if argv is None else argv)
            if "--version" in given:
                _print(f"humerus {importlib.metadata.version('humerus')}\n", sys.stdout)
                return EXIT_DONE
            if asked := _HELP & set(given):
                _print(self._help(define, full="--helpfull" in asked) + "\n", sys.stdout)
                return EXIT_DONE
            with signals.interrupt_on_signals(self.name, self.when_stopped) as interruption:
                try:
                    return self._run(define, given)
                except (Exception, KeyboardInterrupt) as error:
                    # A runner may turn the interruption into an error of its own.
                    interrupted = interruption.arrived or isinstance(error, KeyboardInterrupt)
                    return self._explain(KeyboardInterrupt() if interrupted else error)

        # A test runner takes what a wrapper wraps for its signature.
        del command.__wrapped__
        return command

    def _run(self, define: Callable[[flags.FlagValues], Main], argv: list[str]) -> int:
        argv = self.rewritten(telemetry.start(argv))
        logging_setup.libraries()
        values = _flag_values()
        main, words = self._parse(define, values, argv)
        if self.tensorflow:
            logging_setup.import_tensorflow()
        self._tell(main(*words), values["json"].value if "json" in values else None)
        return EXIT_DONE

    def _parse(
        self, define: Callable[[flags.FlagValues], Main], values: flags.FlagValues, argv: list[str]
    ) -> tuple[Main, list[str]]:
        """Defines the flags in `values`, parses the command line into them, and returns what to do and the words for it."""
        try:
            main = define(values)
            _, *words = values(argv, known_only=self.passes_on)
        except flags.Error as error:
            raise ConfigError(_plain(error)) from error
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"a setting of the recipe is wrong: {_plain(error)}") from error
        if missing := [flag for flag in self.required if values[flag].value in (None, "")]:
            raise ConfigError(
                f"{' and '.join(f'--{flag}' for flag in missing)} must be given; "
                f"see {self.name} --help"
            )
        if words and not (self.takes_words or self.passes_on):
            raise ConfigError(
                f"unexpected argument {words[0]!r}; flags have the form --name=value, see {self.name} --help"
            )
        return main, words

    def _tell(self, result: Result | None, json_path: str | None) -> None:
        if result is None:
            return
        document = json.dumps(result.document, indent=2) + "\n"
        if json_path == "-":
            _print(document, json_log.unwrap(sys.stdout))
            return
        _print(logging_setup.escape_control_characters(result.text) + "\n", sys.stdout)
        if json_path and self.write:
            self.write(json_path, document)

    def _explain(self, error: BaseException) -> int:
        """Prints a sentence on what a user can do something about, and returns its exit code; raises what is our own mistake."""
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
        said = _plain(error) if isinstance(error, flags.Error) else str(error)
        said = (
            f"stopped; {self.when_stopped}"
            if isinstance(error, KeyboardInterrupt)
            else " ".join(said.splitlines())
        )
        if code == EXIT_STOPPED and telemetry.given_up():
            # For a scheduler, this is a failure to be counted: it could go on forever.
            code, said = EXIT_FAILURE, f"the liveness probe saw nothing get done and had it {said}"
        sys.stderr.write(logging_setup.escape_control_characters(f"{self.name}: {said}") + "\n")
        return code

    def _help(self, define: Callable[[flags.FlagValues], Main], full: bool) -> str:
        values = _flag_values()
        define(values)
        parts = [inspect.cleandoc(define.__doc__ or ""), self._describe(values)]
        if full:
            parts += ["Of every program:", self._describe(telemetry.FLAGS)]
            parts += [
                "--flagfile=FILE takes flags from a file, one a line; --version tells the version."
            ]
        else:
            parts += [
                f"{self.name} --helpfull shows also the flags of every program: logs as JSON, heartbeat, metrics."
            ]
        return "\n\n".join(parts)

    def _describe(self, values: flags.FlagValues) -> str:
        """A paragraph for each flag, as wide as the terminal."""
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
            # absl puts the values ahead of a help text, and that a flag may be repeated behind it.
            told = re.sub(r"^<[^>]*>: |;\n\s+repeat this.*", "", flag.help)
            text = f"{told} ({'; '.join(notes)})" if notes else told
            lines.append(wrapper.fill(f"  {name:<{_NAME_COLUMNS}}{text}"))
        return "\n".join(lines)


def _print(text: str, stream: TextIO) -> None:
    """Writes all of it; a reader who goes early, as `head` does, has had enough."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Else Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _plain(error: Exception) -> str:
    """An error of absl's in words alone."""
    return re.sub(r"[\\']|^ERROR:: ", "", str(error).replace("\\n", ". "))


def _flag_values() -> flags.FlagValues:
    """Of one call alone, so that two programs, or two calls in a process, may have a flag of the same name."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    return values
