"""Find the recipes of `trainer.configs` by name, as `--config` takes them."""

import pathlib
import re
import runpy
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from trainer.errors import ConfigError
from trainer.program.flag_types import SWITCH, DescribedParser

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
_CONFIG_FLAGS = ("--config=", "-config=")
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
    recipe = named[-1] if named else "humerus"
    return [argv[0], f"--config={_find_recipe(recipe)}", *others]


def _find_recipe(name: str) -> str:
    """Return the path of a recipe of ours, or of a file."""
    known = CONFIGS / f"{name}.py"
    if known.is_file():
        return str(known)
    if not pathlib.Path(name.split(":")[0]).is_file():
        raise ConfigError(
            f"--config={name}: neither a recipe of this program ({list_names()}) nor a file"
        )
    _check_file(name)
    return name


def _check_file(name: str) -> None:
    """Raise `ConfigError` where a file of the user makes no settings.

    Args:
      name: its path, or `PATH:ARGUMENT` for a `get_config` that takes an argument.
    """
    path, colon, argument = name.partition(":")
    try:
        settings = runpy.run_path(path)["get_config"](*([argument] if colon else []))
        reason = f"its get_config() returns a {type(settings).__name__}"
    except Exception as error:  # whatever the file raises
        lacks = isinstance(error, KeyError) and error.args == ("get_config",)
        reason = "it has no get_config()" if lacks else f"{type(error).__name__}: {error}"
    else:
        if isinstance(settings, ConfigDict):
            return
    raise ConfigError(
        f"--config={name} is no recipe ({reason}); expected a Python file whose get_config() "
        "returns a ConfigDict, such as those of trainer/configs"
    )
