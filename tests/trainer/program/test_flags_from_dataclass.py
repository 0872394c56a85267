"""Test that the flags of a dataclass have its defaults, and that values arrive in its fields."""

import dataclasses

import pytest
from absl import flags

from batch_inference import options as scorer_options
from trainer import local
from trainer import options as trainer_options
from trainer.program import telemetry
from trainer.program.flags_from_dataclass import define_flags, option, read_flags


@dataclasses.dataclass(frozen=True)
class Options:
    folder: str = option("A folder.", schemes=("gs",))
    names: tuple[str, ...] = option("Names.", ("a",), repeatable=True)
    kinds: tuple[str, ...] = option("Kinds.", ("x", "y"), choices=("x", "y", "z"))
    share: float | None = option("A share.", None, low=0, high=1)
    count: int = option("A count.", 3, low=1, high=9)
    fast: bool = option("Fast.", False)
    secret: str = option("A secret.", "", secret=True)
    rest: tuple[str, ...] = ()


def parse(options: type, *arguments: str) -> dict:
    values = flags.FlagValues()
    define_flags(options, values)
    values(["program", *arguments])
    return read_flags(options, values)


@pytest.mark.parametrize(
    "options",
    [
        Options,
        scorer_options.Options,
        scorer_options.OverlayOptions,
        scorer_options.GalleryOptions,
        trainer_options.PhantomOptions,
        trainer_options.PrepareOptions,
        trainer_options.TrainOptions,
        trainer_options.EvaluateOptions,
        trainer_options.VerifyOptions,
        trainer_options.WaitOptions,
        trainer_options.ExplainOptions,
        local.Options,
        telemetry.Options,
    ],
    ids=lambda options: f"{options.__module__}.{options.__name__}",
)
def test_without_flags_fields_have_their_defaults(options):
    required = [f for f in dataclasses.fields(options) if f.default is dataclasses.MISSING]
    read = parse(options)
    assert [read.pop(field.name) for field in required] == [None] * len(required)
    given = {field.name: "given" for field in required}
    assert options(**given, **read) == options(**given)


def test_each_flag_sets_its_field():
    arguments = ["--folder=gs://b/o", "--names=p,q", "--names=r", "--kinds=z", "--share=0.5"]
    read = parse(Options, *arguments, "--count=9", "--fast", "--secret=hidden")
    expected = Options("gs://b/o", ("p", "q", "r"), ("z",), 0.5, 9, True, "hidden")
    assert Options(**read) == expected
    assert "hidden" not in repr(expected)


@pytest.mark.parametrize(
    "argument", ["--folder=s3://b", "--kinds=z,w", "--kinds=", "--share=1.1", "--count=0"]
)
def test_a_value_out_of_range_is_an_error(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument[2:7]):
        parse(Options, argument)


@pytest.mark.parametrize("value", ["gs://", "gs:///", "gs:/b/o", "gs:///b"])
def test_a_url_that_names_nothing_is_no_local_folder(value):
    with pytest.raises(flags.IllegalFlagValueError, match="expected a name behind gs://"):
        parse(Options, f"--folder={value}")
