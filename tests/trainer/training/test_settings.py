"""Every setting has a rule; what it refuses is one sentence that names the setting."""

import importlib
import math
import pathlib
import re
import sys

import pytest

from tests.support import small_recipe
from trainer import main
from trainer.configs import default
from trainer.dataset.dataset_info import DatasetInfo
from trainer.errors import EXIT_CONFIG, ConfigError
from trainer.training import settings

RECIPES = sorted(path.stem for path in pathlib.Path(default.__file__).parent.glob("[a-z]*.py"))
KEYS = sorted(settings.RULES)
DEFAULTS = settings.flatten(default.get_config().to_dict())
REFUSED = {
    float: [-1.0, -math.inf, math.inf, math.nan, 1e40, "", "text"],
    int: [-1, 10**40, 0.5, math.nan, math.inf, "", "text", True],
    tuple: [(0,), (-1,), (10**40,), (math.nan,), ("text",), "text", 8],
    str: [-1, math.nan, math.inf],
    bool: ["", "text", 2, math.nan],
    type(None): ["", "text", 2, math.nan],
}
"""Values that no setting takes whose default has this type."""
RANGE = re.compile(r"a (?:whole )?number from (\S+) to (below )?(\S+)")
MAY_BE_EMPTY = ("fallback_backbone", "cam_methods")
CHECKED_WITH_THE_MODEL = ("weights", "unfreeze_layers")
"""Texts that may name a file, or a layer of a backbone that is not built yet."""


def check_with(key: str, value) -> None:
    """Check the default settings, of which one has another value, of whatever type."""
    changed = default.get_config()
    *folders, name = key.split(".")
    holder = changed
    for folder in folders:
        holder = holder[folder]
    with changed.unlocked(), changed.ignore_type():
        holder[name] = value
    settings.check(changed)


def test_every_setting_has_a_rule_and_every_rule_a_setting():
    assert set(settings.flatten(default.get_config().to_dict())) == set(settings.RULES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_the_rules(name):
    settings.check(importlib.import_module(f"trainer.configs.{name}").get_config())


def refused_values(key: str) -> list:
    """Return values that the setting must not take."""
    values = list(REFUSED[type(DEFAULTS[key])])
    if isinstance(DEFAULTS[key], str):
        values += [] if key in MAY_BE_EMPTY else [""]
        values += [] if key in CHECKED_WITH_THE_MODEL else ["text"]
    return values


@pytest.mark.parametrize(
    "key, value", [(key, value) for key in KEYS for value in refused_values(key)]
)
def test_a_value_that_makes_no_sense_is_named(key, value):
    with pytest.raises(ConfigError, match=f"--config.{key}") as caught:
        check_with(key, value)
    assert "expected" in str(caught.value) or "not among" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "key", [key for key, value in DEFAULTS.items() if type(value) in (int, float)]
)
def test_the_ends_of_a_range_are_taken_unless_they_are_excluded(key):
    low, below, high = RANGE.fullmatch(settings.RULES[key].expected).groups()
    low, high = (type(DEFAULTS[key])(end) for end in (low, high))
    excluded = bool(below)
    if key != "epochs":  # of which one phase needs at least one
        check_with(key, low)
    for value, is_refused in ((high, excluded), (high + 1, True)):
        if is_refused:
            with pytest.raises(ConfigError, match=key):
                check_with(key, value)
        else:
            check_with(key, value)


def test_a_run_without_any_epoch_is_refused():
    with pytest.raises(ConfigError, match="no epoch would be trained"):
        check_with("epochs", 0)


def test_a_recipe_that_lacks_a_setting_is_refused():
    recipe = default.get_config()
    with recipe.unlocked():
        del recipe.seed
    with pytest.raises(ConfigError, match="the recipe has no setting seed"):
        settings.check(recipe)


def test_what_is_recorded_is_all_that_changes_what_is_learnt():
    recipe = default.get_config()
    dataset = DatasetInfo(image_size=32, preprocessing={}, fingerprint="abc")
    recorded = settings.select_recorded(recipe, dataset, folds=5)
    assert recorded["config.augmentation.rotation"] == 30.0 and recorded["folds"] == 5
    assert (recorded["data.fingerprint"], recorded["data.image_size"]) == ("abc", 32)
    left_out = {f"config.{key}" for key in settings.RULES} - set(recorded)
    assert left_out == {f"config.{key}" for key in settings.RUNTIME_KEYS} - {"config.recipe"}


def test_hosts_share_what_is_learnt_and_what_they_compute_together():
    dataset = DatasetInfo(image_size=32, preprocessing={}, fingerprint="abc")
    shared = settings.select_shared(default.get_config(), dataset, folds=5)
    left_out = {f"config.{key}" for key in settings.RULES} - set(shared)
    assert left_out == {
        "config.abstain",
        "config.cache",
        "config.cam_methods",
        "config.checkpoint_every_steps",
        "config.keep_checkpoints",
        "config.threshold_rule",
        "config.verify_engines",
    }, "these concern one host, or the results that the chief writes"
    assert (shared["folds"], shared["data.fingerprint"]) == (5, "abc")


@pytest.mark.parametrize("key", [key for key in KEYS if key != "unfreeze_layers"])
def test_the_command_ends_with_one_sentence_and_writes_nothing(
    data_dir, tmp_path, monkeypatch, capsys, key
):
    """From random weights all layers train, and `unfreeze_layers` is not read."""
    value = {int: "-1", float: "nan"}.get(type(DEFAULTS[key]), "text")
    workdir = tmp_path / "run"
    command = [
        "humerus-train",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        f"--config={small_recipe.__file__}",
        f"--config.{key}={value}",
    ]
    # The settings of the recipe are looked for in the command line of the process.
    monkeypatch.setattr(sys, "argv", command)
    assert main.train([*command, "--dry_run"]) == EXIT_CONFIG
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith("humerus-train: ") and key.rpartition(".")[2] in last, said.err
    assert "Traceback" not in said.err and not said.out and not workdir.exists()
