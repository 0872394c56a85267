"""Read a sweep: a text file with a line for each trial, its name and the settings it changes.

    # name    settings of humerus-train that the trial changes; * stands for all trials
    *         --config=humerus_small
    base
    slow      --config.learning_rate=1e-4
    dropout   --config.learning_rate=1e-4 --config.dropout=0.5

`humerus-train --sweep=FILE --sweep_line=INDEX` trains one of them, as a pod of an Indexed Job does;
`humerus-sweep` trains them one after the other.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from trainer.errors import ConfigError
from trainer.files import manifest_text, regular_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BYTES = 1 << 20
_ALL = "*"
"""The name that stands for all trials."""
_FLAGS = ("sweep", "sweep_line", "workdir")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One line of a sweep.

    Attributes:
      name: of its folder in the folder of the sweep.
      settings: words of the command line, such as `--config.dropout=0.5`, those for all trials
        first.
    """

    name: str
    settings: tuple[str, ...]


def read(path: str) -> list[Trial]:
    """Return the trials of a file in their order.

    Raises:
      ConfigError: there is no such file, or a line of it is wrong.
    """
    try:
        content = regular_file.read(path, _MAX_BYTES)
        lines = content.decode(manifest_text.detect_encoding(content)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or error
        raise ConfigError(
            f"--sweep={path} cannot be read ({reason}); expected a text file with a name and "
            "settings on each line"
        ) from error
    of_all: list[str] = []
    trials: dict[str, Trial] = {}
    for number, line in enumerate(lines, 1):
        where = f"--sweep={path} line {number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigError(f"{where}: a quotation mark is not closed") from error
        if not words:
            continue
        name, *settings = words
        if name != _ALL and not _NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: {name!r} cannot name a trial; expected letters, digits, '.', '_' and "
                "'-', then settings such as --config.dropout=0.5"
            )
        if name in trials:
            raise ConfigError(f"{where}: the name {name} stands in an earlier line; choose another")
        for word in settings:
            if not re.match(r"--config(\.[\w.]+)?=", word):
                raise ConfigError(
                    f"{where}: {word!r} is not a setting; expected --config.KEY=VALUE or "
                    "--config=RECIPE"
                )
        if name == _ALL and trials:
            raise ConfigError(
                f"{where}: write the settings of all trials (*) before the first trial"
            )
        if name == _ALL:
            of_all += settings
        else:
            trials[name] = Trial(name, (*of_all, *settings))
    if not trials:
        raise ConfigError(f"--sweep={path} lists no trial; write a name and settings on each line")
    return list(trials.values())


def pick(path: str, index: str) -> Trial:
    """Return the trial of an index, counted from 0 without comments and blank lines.

    Raises:
      ConfigError: as `read`, or there is no such trial.
    """
    trials = read(path)
    if not index.isdecimal() or int(index) >= len(trials):
        raise ConfigError(
            f"--sweep_line={index}: {path} lists {len(trials)} trials; expected a whole number "
            f"from 0 to {len(trials) - 1}"
        )
    return trials[int(index)]


def replace_trial(argv: Sequence[str]) -> list[str]:
    """Return the command line of `humerus-train` with --sweep and --sweep_line replaced.

    The settings of the trial come last, so that they count; its recipe replaces another, and its
    folder lies in --workdir.

    Raises:
      ConfigError: as `pick`, or one of the flags stands without the others.
    """
    words, rest = iter(argv), []
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in (*_FLAGS, "config"):
            given[name] = value if equals else next(words, "")
        else:
            rest.append(word)
    if not {"sweep", "sweep_line"} & given.keys():
        return list(argv)
    if missing := [name for name in _FLAGS if name not in given]:
        raise ConfigError(
            f"--{missing[0]} must be given too: --sweep and --sweep_line choose a trial, whose "
            "folder lies in --workdir"
        )
    trial = pick(given["sweep"], given["sweep_line"])
    recipes = [word for word in trial.settings if word.startswith("--config=")]
    if "config" in given:
        recipes = [f"--config={given['config']}", *recipes]
    settings = [word for word in trial.settings if word not in recipes]
    # A recipe stands before what changes it.
    program, *others = rest
    workdir = f"--workdir={given['workdir'].rstrip('/')}/{trial.name}"
    return [program, *recipes[-1:], *others, workdir, *settings]
