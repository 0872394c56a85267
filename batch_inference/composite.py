"""Make composite transforms of Beam from functions."""

import functools
from collections.abc import Callable
from typing import Any

import apache_beam as beam


class _Composite(beam.PTransform):
    """A transform of several steps, named after its function."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]):
        super().__init__(function.__name__)
        self._function = function
        self._arguments = arguments

    def expand(self, values: Any) -> Any:
        return self._function(values, *self._arguments)


def composite(function: Callable[..., Any]) -> Callable[..., beam.PTransform]:
    """Return the constructor of a transform, from the function that applies its steps.

    The function takes the collections, then the arguments of the constructor. Unlike Beam's own
    `ptransform_fn`, it shows no argument to the runner: the address of an input may hold the
    number of a patient.
    """

    @functools.wraps(function)
    def make(*arguments: Any) -> beam.PTransform:
        return _Composite(function, arguments)

    return make
