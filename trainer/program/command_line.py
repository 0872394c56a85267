"""Make a command from a function: parse its flags, print help and results, return an exit code.

@Program("humerus-count", Options)
def count(options: Options) -> Result:
    \"\"\"Counts radiographs.

    humerus-count --input=radiographs
    \"\"\"
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib.metadata
import inspect
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

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
    TrialError,
)
from trainer.program import (
    json_log,
    logging_setup,
    path_checks,
    signals,
    standard_streams,
    telemetry,
    text_escaping,
)
from trainer.program.flag_help import describe_flags
from trainer.program.flag_types import BEAM_SCHEMES, SCHEMES, PathParser
from trainer.program.flags_from_dataclass import (
    define_flags,
    list_required,
    option,
    read_flags,
)

_HELP = {"--help", "-h", "-help", "--helpshort", "--helpfull"}


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a program.

    Attributes:
      text: the result for people.
      document: the result for programs, of JSON types.
      failure: an error to raise once the result is written; it gives the exit code.
    """

    text: str
    document: Any
    failure: Exception | None = None


@dataclasses.dataclass(frozen=True)
class _DryRunOption:
    dry_run: bool = option(
        "Check the command line and the inputs, print what would be done, and write nothing.", False
    )


@dataclasses.dataclass(frozen=True)
class _JsonOption:
    json: str | None = option(
        "File for the result as JSON; - prints JSON instead of text.", None, schemes=BEAM_SCHEMES
    )


@dataclasses.dataclass(frozen=True)
class Program:
    """Makes a command of a function `work(options, *arguments) -> Result | None`.

    Attributes:
      name: the name of the command, such as `humerus-train`.
      options: the dataclass of the options, whose fields are the flags.
      has_dry_run: define --dry_run; the work gets its value as the keyword `dry_run`.
      has_json: define --json, for the result.
      define_config: defines the flag --config of a command line and returns a function that reads
        it; the work gets what it reads as the keyword `config`.
      list_settings: returns the flags of all settings, such as `--config.epochs`.
      takes_arguments: pass arguments that are not flags to the work, `~` at the start of one as
        the home folder; otherwise they are an error.
      passes_unknown_flags: pass undefined flags to the work too; otherwise they are an error.
      rewrite_argv: changes the command line before it is parsed.
      when_stopped: what a user may do after a signal ended the command.
      write: writes a text to a path, local or in a bucket, for --json.
    """

    name: str
    options: type
    has_dry_run: bool = False
    has_json: bool = True
    define_config: Callable[[flags.FlagValues, list[str] | None], Callable[[], Any]] | None = None
    list_settings: Callable[[], list[str]] = list
    takes_arguments: bool = False
    passes_unknown_flags: bool = False
    rewrite_argv: Callable[[list[str]], list[str]] = list
    when_stopped: str = "run again"
    write: Callable[[str, str], None] = storage.write_text

    def __call__(self, work: Callable[..., Result | None]) -> Callable[..., int]:
        @functools.wraps(work)
        def command(argv: Sequence[str] | None = None) -> int:
            standard_streams.open_closed()
            given = list(sys.argv if argv is None else argv)
            with signals.interrupt_on_signals(self.name, self.when_stopped) as interruption:
                try:
                    return self._run(work, given)
                except (Exception, KeyboardInterrupt) as error:
                    # A runner may turn the interruption into an error of its own.
                    interrupted = interruption.arrived or isinstance(error, KeyboardInterrupt)
                    return self._report_error(KeyboardInterrupt() if interrupted else error)

        # Test runners would take the signature of the wrapped function for the command's.
        del command.__wrapped__
        return command

    def _run(self, work: Callable[..., Result | None], argv: list[str]) -> int:
        if "--version" in argv:
            version = importlib.metadata.version("humerus")
            standard_streams.write(f"humerus {version}\n", sys.stdout)
            return EXIT_DONE
        if asked_for := _HELP & set(argv):
            described = self._format_help(work, full="--helpfull" in asked_for)
            standard_streams.write(f"{described}\n", sys.stdout)
            return EXIT_DONE
        argv = self.rewrite_argv(telemetry.start(argv))
        logging_setup.configure_logs()
        values = _make_flag_values()
        options, arguments, more = self.parse(values, argv)
        json_path = values["json"].value if self.has_json else None
        if json_path and json_path != "-":
            path_checks.check_file_writable("json", json_path)
            path_checks.check_not_taken("json", json_path, options)
        result = work(options, *arguments, **more)
        self._write_result(result, json_path)
        if result and result.failure:
            raise result.failure
        return EXIT_DONE

    def define_flags(
        self, values: flags.FlagValues, argv: list[str] | None = None
    ) -> dict[str, Callable[[], Any]]:
        """Define all flags; return what reads the value of each further keyword of the work."""
        define_flags(self.options, values)
        readers: dict[str, Callable[[], Any]] = {}
        if self.define_config:
            readers["config"] = self.define_config(values, argv)
        if self.has_dry_run:
            define_flags(_DryRunOption, values)
            readers["dry_run"] = lambda: values["dry_run"].value
        if self.has_json:
            define_flags(_JsonOption, values)
        return readers

    def parse(
        self, values: flags.FlagValues, argv: list[str]
    ) -> tuple[Any, list[str], dict[str, Any]]:
        """Parse the command line; return the options, the arguments and the keywords of the work.

        Raises:
          ConfigError: a flag is wrong or missing, or there are arguments that nobody takes.
        """
        try:
            readers = self.define_flags(values, argv)
            _, *arguments = values(argv, known_only=self.passes_unknown_flags)
        except flags.UnrecognizedFlagError as error:
            raise ConfigError(self._describe_unknown(error.flagname, values)) from error
        except flags.Error as error:
            raise ConfigError(_describe(error)) from error
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"a setting of the recipe is wrong: {_describe(error)}") from error
        required = list_required(self.options)
        missing = [flag for flag in required if values[flag].value in (None, "")]
        self._check_words(arguments, missing)
        if missing:
            raise ConfigError(
                f"{' and '.join(f'--{flag}' for flag in missing)} must be given; "
                f"see {self.name} --help"
            )
        if self.takes_arguments:
            arguments = [_parse_path(argument) for argument in arguments]
        more = {keyword: read() for keyword, read in readers.items()}
        return self.options(**read_flags(self.options, values)), arguments, more

    def _describe_unknown(self, flag: str, values: flags.FlagValues) -> str:
        """Return the sentence for a flag that nobody knows, with one of a similar name."""
        by_last_part = {name.rpartition(".")[2]: name for name in self.list_settings()}
        by_last_part |= {name: f"--{name}" for name in values}
        similar = difflib.get_close_matches(flag.rpartition(".")[2], by_last_part, 1)
        guess = f" (did you mean {by_last_part[similar[0]]}?)" if similar else ""
        return f"unknown flag --{flag}{guess}; see {self.name} --help"

    def _check_words(self, words: Sequence[str], missing: Sequence[str]) -> None:
        """Raise `ConfigError` for a word that nobody takes, which may be why a flag is missing.

        Args:
          words: what of the command line is no flag of ours.
          missing: names of the required flags that are not given.
        """
        if not words or self.takes_arguments or (self.passes_unknown_flags and not missing):
            return
        for word in words if self.passes_unknown_flags else ():
            name = word.partition("=")[0]
            if similar := difflib.get_close_matches(name, [f"--{flag}" for flag in missing], 1):
                raise ConfigError(
                    f"unknown option {name} (did you mean {similar[0]}?); see {self.name} --help"
                )
        if self.passes_unknown_flags and words[0].startswith("-"):
            return
        raise ConfigError(
            f"unexpected argument {words[0]!r}; flags have the form --name=value, "
            f"see {self.name} --help"
        )

    def check(self, argv: list[str]) -> None:
        """Raise `ConfigError` where `parse` refuses a command line; run nothing."""
        self.parse(_make_flag_values(), self.rewrite_argv(argv))

    def _write_result(self, result: Result | None, json_path: str | None) -> None:
        if result is None:
            return
        document = json.dumps(result.document, indent=2) + "\n"
        if json_path == "-":
            standard_streams.write(document, json_log.unwrap(sys.stdout))
            return
        text = text_escaping.escape_control_characters(result.text)
        standard_streams.write(f"{text}\n", sys.stdout)
        if json_path:
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
                (TrainingDivergedError, TrialError, HostLostError, RunnerError, OSError),
                EXIT_FAILURE,
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
        text = text_escaping.escape_control_characters(f"{self.name}: {message}")
        with contextlib.suppress(OSError):  # the exit code is all that is left to say
            standard_streams.write(f"{text}\n", sys.stderr)
        return code

    def _format_help(self, work: Callable[..., Result | None], full: bool) -> str:
        values = _make_flag_values()
        self.define_flags(values)
        parts = [
            inspect.cleandoc(work.__doc__ or ""),
            describe_flags(values, list_required(self.options)),
        ]
        if full:
            parts += ["Flags of every program:", describe_flags(telemetry.FLAGS, ())]
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


def refuse_as_program() -> NoReturn:
    """Refuse to run a module of commands by `python -m`, which would do nothing."""
    folder = pathlib.Path(sys.executable).parent
    sys.stderr.write(
        f"expected a command such as humerus-train or humerus-score, in {folder}, instead of"
        " `python -m`\n"
    )
    sys.exit(EXIT_CONFIG)


def _describe(error: BaseException) -> str:
    """Return the message of an error, of absl's and ml_collections' too."""
    if isinstance(error, flags.CantOpenFlagFileError):
        return f"--flagfile cannot be read: {error.__context__}"
    # The text of a KeyError is its argument in quotes.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _parse_path(argument: str) -> str:
    """Return a path that stands without a flag, `~` at its start as the home folder."""
    try:
        return PathParser(SCHEMES, any_bytes=True).parse(argument)
    except ValueError as error:
        raise ConfigError(f"{argument}: {error}") from error


def _make_flag_values() -> flags.FlagValues:
    """Return flags of one call, so that programs in one process may share names of flags."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    return values
