"""Every recipe has all settings, states only its differences, and builds its run."""

import importlib
import pathlib

import pytest
import tensorflow as tf

from tests.support import small_run, tiny_net  # noqa: F401 (makes the backbone known)
from trainer.configs import default
from trainer.dataset.dataset_info import DatasetInfo
from trainer.training.build_run import build_run
from trainer.training.job import TrainingJob
from trainer.training.settings import flatten

RECIPES = sorted(path.stem for path in pathlib.Path(default.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_locked_has_the_keys_of_the_default_and_trains(name, tmp_path):
    config = importlib.import_module(f"trainer.configs.{name}").get_config()
    assert config.is_locked and set(flatten(config.to_dict())) == set(
        flatten(default.get_config().to_dict())
    )
    config.update(backbone="tinynet", weights="none")
    train, validation = small_run.split(20), small_run.split(6, seed=1)
    dataset = DatasetInfo(image_size=32, preprocessing={}, fingerprint="in memory")
    job = TrainingJob(config, dataset, data_dir="", workdir=str(tmp_path))
    run = build_run(job, tf.distribute.get_strategy(), train, validation)
    assert (
        run.loop.epochs == config.epochs
    )  # from random weights there is no phase for the head alone


def test_the_recipes_differ_from_the_default_and_from_each_other():
    settings = [
        flatten(importlib.import_module(f"trainer.configs.{name}").get_config().to_dict())
        for name in RECIPES
    ]
    assert {"default", "humerus", "humerus_small", "predecessor", "smoke"} <= set(RECIPES)
    assert len(
        {tuple(sorted((key, str(value)) for key, value in each.items())) for each in settings}
    ) == len(RECIPES)
