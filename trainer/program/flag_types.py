"""Parse the values of flags and check them: paths, lists and finite numbers."""

import math
import os
import re
from collections.abc import Collection
from typing import Any

from absl import flags

from trainer.files import urls

SCHEMES = ("gs", "file")
"""Schemes of the URLs that TensorFlow's file functions open."""
BEAM_SCHEMES = (*SCHEMES, "s3", "hdfs", "azfs")
"""Schemes of the URLs that Beam opens if the packages for them are installed."""


_URL = re.compile("(?P<scheme>[a-z][a-z0-9+.-]*):(?P<slashes>/+)(?P<place>.*)")


class PathParser(flags.ArgumentParser):
    """Parses a path or URL; `~` at its start is the home folder."""

    def __init__(self, schemes: Collection[str], any_bytes: bool = False):
        """Take the allowed schemes of URLs, and whether the path may be other than UTF-8."""
        self._schemes = schemes
        self._any_bytes = any_bytes

    def parse(self, argument: str) -> str:
        if not self._any_bytes and argument.encode("utf-8", "replace").decode() != argument:
            raise ValueError("expected a path in UTF-8; rename that file or folder")
        if urls.is_remote(argument) and urls.split_url(argument)[0] not in self._schemes:
            known = ", ".join(urls.join_url(scheme, "") for scheme in self._schemes)
            raise ValueError(f"expected a local path{known and f' or a URL with {known}'}")
        # `gs://$BUCKET` with an empty BUCKET, or one slash too few, would be a local folder `gs:`.
        url = _URL.fullmatch(argument)
        if url and url["scheme"] in self._schemes and not (url["slashes"] == "//" and url["place"]):
            raise ValueError(f"expected a name behind {urls.join_url(url['scheme'], '')}")
        return os.path.expanduser(argument)  # noqa: PTH111, a URL is not a path


class DescribedParser(flags.ArgumentParser):
    """Parses as another parser does; its errors say what was expected."""

    def __init__(self, parser: flags.ArgumentParser, expected: str):
        super().__init__()
        self._parser = parser
        self._expected = expected

    def parse(self, argument: Any) -> Any:
        try:
            return self._parser.parse(argument)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected {self._expected}") from error


SWITCH = DescribedParser(flags.BooleanParser(), "true or false")


class NumberParser(flags.FloatParser):
    """Parses a number from `low` to `high`."""

    def parse(self, argument: str | float) -> float:
        return _parse_number(float, "a number", argument, self.lower_bound, self.upper_bound)


class WholeNumberParser(flags.IntegerParser):
    """Parses a whole number from `low` to `high`."""

    def parse(self, argument: str | int) -> int:
        return _parse_number(int, "a whole number", argument, self.lower_bound, self.upper_bound)


class ListParser(flags.ListParser):
    """Parses a comma-separated list; if there are choices, one or several of them."""

    def __init__(self, choices: Collection[str] = ()):
        super().__init__()
        self._choices = choices

    def parse(self, argument: str | list[str]) -> list[str]:
        members = super().parse(argument)
        # A list is the flag's default, which may be empty.
        is_empty = not members and isinstance(argument, str)
        if self._choices and (is_empty or set(members) - set(self._choices)):
            raise ValueError(f"expected one or several of {','.join(self._choices)}")
        return members


def _parse_number(kind: type, what: str, argument: Any, low: Any, high: Any) -> Any:
    expected = f"expected {what} from {low} to {high}"
    try:
        number = kind(argument)
    except ValueError as error:
        raise ValueError(expected) from error
    # NaN fails both comparisons.
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(expected)
    return number
