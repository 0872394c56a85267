"""The recipes of `trainer.configs` by name, as `--config` takes them."""

import pathlib
import re
from collections.abc import Sequence

from trainer.errors import ConfigError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def names() -> str:
    """Of all our recipes, for a sentence."""
    return ", ".join(sorted(path.stem for path in CONFIGS.glob("[a-z]*.py")))


def as_paths(argv: Sequence[str]) -> list[str]:
    """`--config=NAME` -> the file of that name among our recipes, `humerus` where none is named; paths stay.

    As an argument, not as the flag's default: a wrong key of a default would raise while the flag is being defined.
    """

    def path(name: str) -> str:
        known = CONFIGS / f"{name}.py"
        if known.is_file():
            return str(known)
        if not pathlib.Path(name.split(":")[0]).is_file():
            raise ConfigError(f"--config={name}: neither one of our recipes ({names()}) nor a file")
        return name

    words = iter(argv)
    argv = [
        f"{word}={next(words, '')}" if word in ("--config", "-config") else word for word in words
    ]
    named = [a.partition("=")[2] for a in argv if a.startswith(("--config=", "-config="))] or [
        "humerus"
    ]
    others = [a for a in argv[1:] if not a.startswith(("--config=", "-config="))]
    order = [a.lstrip("-").partition("=")[0] for a in argv if re.match("--?config[.=]", a)]
    if "config" in order[1:] and order[0] != "config":
        raise ConfigError(
            f"--{order[0]} stands ahead of the --config that it changes; name the recipe first"
        )
    # The last one counts, as with any flag: a --flagfile may name one too.
    return [argv[0], f"--config={path(named[-1])}", *others]
