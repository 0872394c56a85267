"""Define the flags of a program from a dataclass, which states default, limits and help once.

@dataclasses.dataclass(frozen=True)
class Options:
    input: str = option("Folder to count in.", schemes=SCHEMES)
    threshold: float = option("Least probability.", 0.5, low=0, high=1)

define_flags(Options, values)
options = Options(**read_flags(Options, values))
"""

import dataclasses
import itertools
import typing
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from trainer.program import flag_types


def option(
    text: str,
    default: Any = dataclasses.MISSING,
    *,
    choices: Collection[str] = (),
    low: float | None = None,
    high: float | None = None,
    schemes: Collection[str] | None = None,
    any_bytes: bool = False,
    repeatable: bool = False,
    secret: bool = False,
) -> Any:
    """Return a dataclass field that becomes a flag.

    Args:
      text: the help of the flag.
      default: the value without the flag; a field without a default belongs to a required flag.
      choices: the values that are allowed, for a list those of its members; empty allows any.
      low: the least number, of a number.
      high: the greatest number, of a number.
      schemes: of a path, the schemes of the URLs that are allowed; none of a local path.
      any_bytes: of a path, whether its bytes may be other than UTF-8.
      repeatable: of a list, whether the flag may be given several times.
      secret: whether `repr` omits the value.
    """
    metadata = {
        "text": text,
        "choices": tuple(choices),
        "limits": (low, high),
        "schemes": schemes,
        "any_bytes": any_bytes,
        "repeatable": repeatable,
    }
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def define_flags(options: type, values: flags.FlagValues) -> None:
    """Define a flag for each field of a dataclass that `option` made, required flags first."""
    kinds = typing.get_type_hints(options)
    for field in sorted(dataclasses.fields(options), key=_has_default):
        if field.metadata:
            _define(field, kinds[field.name], values)


def list_required(options: type) -> list[str]:
    """Return the names of the fields that need a flag."""
    return [field.name for field in dataclasses.fields(options) if not _has_default(field)]


def read_flags(options: type, values: flags.FlagValues) -> dict[str, Any]:
    """Return the values of the flags of a dataclass by field, lists as tuples."""
    read = {}
    for field in dataclasses.fields(options):
        if field.metadata:
            value: Any = values[field.name].value
            if field.metadata["repeatable"]:
                value = list(itertools.chain.from_iterable(value))
            read[field.name] = tuple(value) if isinstance(value, list) else value
    return read


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING


def _define(field: dataclasses.Field, kind: Any, values: flags.FlagValues) -> None:
    name, text = field.name, field.metadata["text"]
    default: Any = field.default if _has_default(field) else None
    if kind is bool:
        flags.DEFINE_bool(name, default, text, values)
        values[name].parser = flag_types.SWITCH
    elif typing.get_origin(kind) is tuple:
        members = flag_types.ListParser(field.metadata["choices"])
        commas = flags.CsvListSerializer(",")
        if field.metadata["repeatable"]:
            flags.DEFINE_multi(members, commas, name, list(default), text, values)
            values[name].help = text  # absl adds a sentence of its own.
        else:
            flags.DEFINE(members, name, list(default), text, values, commas)
    else:
        parser = _make_parser(kind, field.metadata)
        flags.DEFINE(parser, name, default, text, values, flags.ArgumentSerializer())


def _make_parser(kind: Any, metadata: Mapping[str, Any]) -> flags.ArgumentParser:
    """Return the parser of a single value of a type, or of that type or None."""
    if metadata["choices"]:
        return flags.EnumParser(metadata["choices"])
    if metadata["schemes"] is not None:
        return flag_types.PathParser(metadata["schemes"], metadata["any_bytes"])
    (kind,) = set(typing.get_args(kind) or (kind,)) - {type(None)}
    parsers: dict[type, type[flags.ArgumentParser]] = {
        float: flag_types.NumberParser,
        int: flag_types.WholeNumberParser,
    }
    return parsers[kind](*metadata["limits"]) if kind in parsers else flags.ArgumentParser()
