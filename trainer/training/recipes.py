"""Find the recipes of `trainer.configs` by name, as `--config` takes them."""

import difflib
import pathlib
import re
import runpy
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from trainer.errors import ConfigError
from trainer.program.flag_types import SWITCH, DescribedParser

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
_CONFIG_FLAGS = ("--config=", "-config=")
_SETTING = re.compile(r"--?config\.([\w.]+)(=|$)")
_PARSERS = {
    int: DescribedParser(flags.IntegerParser(), "a whole number"),
    float: DescribedParser(flags.FloatParser(), "a number"),
    bool: SWITCH,
}
"""How settings of a recipe are parsed. `settings.RULES` has their limits."""


def list_names() -> str:
    """Return the names of the recipes, comma-separated."""
    return ", ".join(sorted(path.stem for path in CONFIGS.glob("[a-z]*.py")))


def define_config(
    values: flags.FlagValues, argv: Sequence[str] | None = None
) -> Callable[[], ConfigDict]:
    """Define the flag --config; return what reads the settings once the flags are parsed.

    Args:
      values: where the flag is defined.
      argv: the command line that is parsed; by default, that of this process.
    """
    # Without this, a --flagfile is not searched for settings of the recipe: the search would end
    # at the name of the program.
    flags.FLAGS.set_gnu_getopt(True)
    for kind, parser in _PARSERS.items():
        config_flags.register_flag_parser_for_type(kind, parser)
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        f"Recipe ({list_names()}), or a file of your own; by default, humerus. "
        "--config.KEY=VALUE changes a setting of it, see docs/training.md.",
        flag_values=values,
        sys_argv=None if argv is None else list(argv),
    )

    def read() -> ConfigDict:
        file = config_flags.get_config_filename(values["config"])
        with holder.value.unlocked():
            holder.value.recipe = pathlib.PurePath(file).stem
        return holder.value

    return read


def replace_names(argv: Sequence[str]) -> list[str]:
    """Return the command line with `--config=NAME` replaced by the file of that recipe; paths stay.

    Without `--config` the recipe is `humerus`. It is added as an argument rather than as the flag's
    default: a misspelt key of a default would raise while the flag is being defined.

    Raises:
      ConfigError: no such recipe or file, or a setting comes before the recipe that it changes.
    """
    words = iter(argv)
    argv = [
        f"{word}={next(words, '')}" if word in ("--config", "-config") else word for word in words
    ]
    named = [word.partition("=")[2] for word in argv if word.startswith(_CONFIG_FLAGS)]
    others = [word for word in argv[1:] if not word.startswith(_CONFIG_FLAGS)]
    order = [a.lstrip("-").partition("=")[0] for a in argv if re.match("--?config[.=]", a)]
    if "config" in order[1:] and order[0] != "config":
        raise ConfigError(
            f"--{order[0]} comes before the --config that it changes; name the recipe first"
        )
    # As with any flag the last one counts, since a --flagfile may name one too.
    recipe = _find_recipe(named[-1] if named else "humerus")
    settings = _load(recipe)
    names_other_recipe = any("flagfile" in word for word in others)
    for setting in filter(None, map(_SETTING.match, others)):
        if not names_other_recipe:
            _check_setting(setting[1], settings)
    return [argv[0], f"--config={recipe}", *others]


def list_flags() -> list[str]:
    """Return the flags that change a setting, such as `--config.epochs`."""
    return [f"--config.{name}" for name in _list_settings(_load(_find_recipe("default")))]


def _list_settings(settings: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name in settings:
        value = settings.get_ref(name).get()
        if isinstance(value, ConfigDict):
            yield from _list_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _check_setting(name: str, settings: ConfigDict) -> None:
    """Raise `ConfigError` where a recipe has no setting `name`, such as `augmentation.zoom`."""
    known = list(_list_settings(settings))
    if name in known:
        return
    members = [other for other in known if other.startswith(f"{name}.")]
    if members:
        raise ConfigError(
            f"--config.{name} is a group of settings; set one of them, such as"
            f" --config.{members[0]}=VALUE"
        )
    by_last_part = {other.rpartition(".")[2]: other for other in known}
    similar = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, 1)
    guess = f" (did you mean --config.{by_last_part[similar[0]]}?)" if similar else ""
    raise ConfigError(
        f"there is no setting --config.{name}{guess}; trainer/configs/default.py lists all"
    )


def _find_recipe(name: str) -> str:
    """Return the path of a recipe of ours, or of a file."""
    known = CONFIGS / f"{name}.py"
    if known.is_file():
        return str(known)
    if not pathlib.Path(name.split(":")[0]).is_file():
        raise ConfigError(
            f"--config={name}: neither a recipe of this program ({list_names()}) nor a file"
        )
    return name


def _load(name: str) -> ConfigDict:
    """Return the settings that a file makes.

    Args:
      name: its path, or `PATH:ARGUMENT` for a `get_config` that takes an argument.

    Raises:
      ConfigError: it makes none.
    """
    path, colon, argument = name.partition(":")
    try:
        settings = runpy.run_path(path)["get_config"](*([argument] if colon else []))
        reason = f"its get_config() returns a {type(settings).__name__}"
    except Exception as error:  # whatever the file raises
        lacks = isinstance(error, KeyError) and error.args == ("get_config",)
        reason = "it has no get_config()" if lacks else _locate_error(error, path)
    else:
        if isinstance(settings, ConfigDict):
            return settings
    raise ConfigError(
        f"--config={name} is no recipe ({reason}); expected a Python file whose get_config() "
        "returns a ConfigDict, such as those of trainer/configs"
    )


def _locate_error(error: Exception, path: str) -> str:
    """Return an error in one line, after the last line of the file that led to it."""
    said = " ".join(str(error).strip("'\"").split())
    # ml_collections lists all settings behind its first sentence.
    reason = f"{type(error).__name__}: {textwrap.shorten(said, 120, placeholder=' ...')}"
    places = [
        place for place in traceback.extract_tb(error.__traceback__) if place.filename == path
    ]
    return f"line {places[-1].lineno}, `{places[-1].line}`: {reason}" if places else reason
