"""Describe flags for --help, as wide as the terminal."""

import shutil
import textwrap
from collections.abc import Container

from absl import flags

_NAME_COLUMNS = 24
_WIDEST = 110


def describe_flags(values: flags.FlagValues, required: Container[str]) -> str:
    """Return a paragraph for each flag: its name, help, choices and default.

    Args:
      required: names of the flags that must be given.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=" " * (_NAME_COLUMNS + 2), break_on_hyphens=False
    )
    lines = []
    for of_module in values.flags_by_module_dict().values():
        for flag in of_module:
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            notes = []
            if isinstance(flag.parser, flags.EnumParser):
                notes.append("|".join(flag.parser.enum_values))
            if flag.name in required:
                notes.append("required")
            if flag.boolean and flag.default is not None:
                notes.append(f"default {'on' if flag.default else 'off'}")
            elif flag.default not in (None, "", []):
                shown = flag.serialize().partition("=")[2]
                if isinstance(flag.parser, flags.ListParser):
                    shown = shown.replace(",", ", ")  # so that lines break between members
                notes.append(f"default {shown}")
            text = f"{flag.help} ({'; '.join(notes)})" if notes else flag.help
            lines.append(wrapper.fill(f"  {name:<{_NAME_COLUMNS}}{text}"))
    return "\n".join(lines)
