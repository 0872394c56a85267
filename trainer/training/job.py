"""Describe one training run: the description travels from the command line to the results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from trainer import radiograph
from trainer.dataset import prepared_split
from trainer.dataset.dataset_info import DatasetInfo, is_same_preprocessing
from trainer.errors import DataError
from trainer.network import saliency
from trainer.publishing.results import FinishedRun
from trainer.publishing.trained import ScoredSplit, TrainingResult
from trainer.training import settings as settings_lib


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What is trained, on which data, and where the results go.

    Attributes:
      settings: a recipe of `trainer.configs`, with the changes of the command line; checked.
      dataset: the metadata of the prepared data.
      data_dir: folder that `humerus-prepare` wrote, local or in a bucket.
      workdir: folder of the run, local or in a bucket.
      folds: number of folds of a cross-validation; 0 trains one network on the training split.
      profile: trace some steps for TensorBoard's profiler.
      track: experiment tracker that records the run, a key of `tracker.PACKAGES`.
    """

    settings: ml_collections.ConfigDict
    dataset: DatasetInfo
    data_dir: str
    workdir: str
    folds: int = 0
    profile: bool = False
    track: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", ml_collections.FrozenConfigDict(self.settings))

    def for_fold(self, number: int) -> "TrainingJob":
        """Return the job of one network of a cross-validation; `number` counts from 1."""
        return dataclasses.replace(
            self, workdir=f"{self.workdir}/fold-{number}", folds=0, profile=False
        )

    def finish(
        self,
        trained: TrainingResult,
        held_out_name: str,
        test: ScoredSplit,
        history: Sequence[Mapping[str, float]],
        folds: Sequence[Mapping[str, Any]] = (),
    ) -> FinishedRun:
        """Return what the results are made of; see `FinishedRun`."""
        return FinishedRun(
            workdir=self.workdir,
            dataset=self.dataset,
            threshold_rule=self.settings.threshold_rule,
            abstain=self.settings.abstain,
            verify_engines=self.settings.verify_engines,
            cam_methods=saliency.parse_exported_methods(self.settings.cam_methods),
            trained=trained,
            held_out_name=held_out_name,
            test=test,
            history=history,
            settings=settings_lib.flatten(self.settings.to_dict()),
            folds=folds,
        )


def create_job(
    settings: ml_collections.ConfigDict,
    data_dir: str,
    workdir: str,
    folds: int = 0,
    profile: bool = False,
    track: str | None = None,
) -> TrainingJob:
    """Check the settings, read the metadata of the data, and return the job.

    Raises:
      ConfigError: a setting makes no sense.
      DataError: there are no prepared data in `data_dir`, or of another preprocessing.
    """
    settings_lib.check(settings)
    dataset = prepared_split.read_dataset_info(data_dir)
    if not is_same_preprocessing(dataset.preprocessing, radiograph.PREPROCESSING):
        raise DataError(
            f"{data_dir} was prepared by another version of the preprocessing than this program's;"
            " prepare it again with humerus-prepare --overwrite"
        )
    return TrainingJob(settings, dataset, data_dir, workdir, folds, profile, track)
