"""Make a training job of a tiny network on images in memory, wired as the command does it."""

import pathlib

from tests.support import small_recipe
from trainer import radiograph
from trainer.dataset.dataset_info import DatasetInfo
from trainer.network import model as model_lib
from trainer.training.job import TrainingJob


def make_job(
    workdir: str | pathlib.Path, size: int = 32, profile: bool = False, **settings
) -> TrainingJob:
    """Return a job of `small_recipe` with some settings changed; `augmentation` may be partial.

    No data lie behind it: `build_run` is given splits in memory.
    """
    recipe = small_recipe.get_config()
    recipe.update(settings)
    dataset = DatasetInfo(
        image_size=size, preprocessing=radiograph.PREPROCESSING, fingerprint="in memory"
    )
    return TrainingJob(recipe, dataset, data_dir="", workdir=str(workdir), profile=profile)


def save_weights(path: pathlib.Path, size: int = 32, seed: int = 3) -> str:
    """Write the initial weights of `small_recipe`, to start from as pre-trained ones."""
    recipe = small_recipe.get_config()
    architecture = model_lib.Architecture(
        recipe.backbone, recipe.pooling, tuple(recipe.head_widths), recipe.dropout
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model_lib.build(architecture, size, seed=seed).save(path)
    return str(path)
