"""The data set as TensorFlow Datasets knows it: TFRecord shards of what the model eats, readable without this code.

`humerus-prepare` drives it; so can TFDS's own command (which wants `pip install mlcroissant`), of which --manual_dir is the source unless
a configuration names one:

    tfds build radiographs --imports=trainer.dataset.radiographs_dataset_builder --manual_dir=MURA-v1.1 --data_dir=data
    ... --config='{"layout": "manifest", "source": "labels.csv", "image_size": 256}'
"""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from trainer import radiograph
from trainer.dataset import sources, splits, summary
from trainer.dataset.encode import Encoded, encode, in_threads
from trainer.dataset.example import LABELS, SPLITS, Example
from trainer.errors import ConfigError, DataError

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 4096
DEFAULT_BODY_PARTS = ("XR_HUMERUS",)


@dataclasses.dataclass(eq=False)
class RadiographsConfig(tfds.core.BuilderConfig):
    """One source at one image size; `name` follows from layout, body parts and size.

    Attributes:
      source: folder, or the CSV file of a manifest; local or `gs://`. Empty: the folder that TFDS calls the manual one.
      layout: `mura`, `folders` or `manifest`.
      image_size: side of the square in pixels.
      body_parts: of the MURA layout, or `all`.
      validation_fraction: of all patients, where the source names no validation split.
      test_fraction: of all patients, where the source names no test split.
      seed: of the draw of patients.
    """

    name: str = ""
    source: str = ""
    layout: str = "mura"
    image_size: int = 320
    body_parts: tuple[str, ...] = DEFAULT_BODY_PARTS
    validation_fraction: float = 0.15
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        self.body_parts = tuple(sorted({part.strip() for part in self.body_parts} - {""}))
        if self.layout not in sources.LAYOUTS:
            raise ConfigError(
                f"unknown layout {self.layout!r}: expected one of {', '.join(sources.LAYOUTS)}"
            )
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(
                f"image_size must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, got {self.image_size}"
            )
        if not self.body_parts:
            raise ConfigError(
                f"no body part: name some, such as {DEFAULT_BODY_PARTS[0]}, or {sources.ALL_BODY_PARTS!r}"
            )
        splits.check_fractions(self.validation_fraction, self.test_fraction)
        parts = [part.lower() for part in self.body_parts] if self.layout == "mura" else []
        self.name = "_".join([self.layout, *parts, str(self.image_size)])
        self.description = (
            f"Layout {self.layout}, letterboxed to {self.image_size} x {self.image_size} pixels."
        )

    @functools.cached_property
    def examples(self) -> list[Example]:
        """The source's listing with splits, all guards passed.

        Raises:
          ConfigError, DataError: whatever forbids to prepare the source.
        """
        listed = sources.list_examples(self.source, self.layout, self.body_parts)
        examples = splits.assign(listed, self.validation_fraction, self.test_fraction, self.seed)
        splits.check_groups(examples)
        splits.check_classes(examples)
        return examples


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the radiographs of a `RadiographsConfig` as squares of one size."""

    BUILDER_CONFIGS = [RadiographsConfig()]  # noqa: RUF012 - as TFDS has it
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Radiographs are not downloaded: --manual_dir names the folder that holds them, such as MURA-v1.1."
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - as TFDS has it

    # TFDS looks for checksums of downloads by way of a package that it does not install. There are no downloads.
    url_infos = None

    def _create_builder_config(
        self, builder_config: RadiographsConfig | str | None, version: Any
    ) -> RadiographsConfig:
        if isinstance(builder_config, RadiographsConfig):
            return builder_config  # TFDS would warn that it is not one of a fixed list
        return super()._create_builder_config(builder_config, version)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(config.image_size, config.image_size, 1),
                        dtype=np.uint8,
                        encoding_format="png",
                    ),
                    "label": tfds.features.ClassLabel(names=list(LABELS)),
                    "patient_id": tfds.features.Text(),
                    "study_id": tfds.features.Text(),
                    "path": tfds.features.Text(),
                    "attributes": tfds.features.Text(doc="JSON object of texts"),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        generators: dict[str, Iterator[tuple[str, dict[str, Any]]]] = {}
        for split in SPLITS:
            generator = self._generate_examples(split)
            # TFDS fails on a split without any example, so one whose files were all refused must not be announced.
            if (first := next(generator, None)) is not None:
                generators[split] = itertools.chain([first], generator)
        return generators

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        chosen = [example for example in self._config.examples if example.split == split]
        for outcome in in_threads(
            functools.partial(encode, image_size=self._config.image_size), chosen
        ):
            self._progress.update()
            self._outcomes.append(dataclasses.replace(outcome, png=None))
            if outcome.png is not None:
                yield outcome.example.path, _record(outcome)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        # TFDS calls this while the directory still has its temporary name, so that all that follows is there or nothing is.
        self._outcomes: list[Encoded] = []
        config = self.builder_config
        self._config = (
            config
            if config.source
            else dataclasses.replace(config, source=str(dl_manager.manual_dir))
        )
        with tqdm.tqdm(
            total=len(self._config.examples), desc="preparing", unit=" images", disable=None
        ) as self._progress:
            super()._download_and_prepare(dl_manager, download_config)
        self.info.metadata.update(self._metadata(self._outcomes))
        (self.data_path / summary.REJECTIONS_FILE).write_text(
            summary.rejections_csv(self._outcomes)
        )

    def _metadata(self, outcomes: list[Encoded]) -> dict[str, Any]:
        config = self._config
        rejections = Counter(outcome.reason for outcome in outcomes if outcome.reason)
        if rejections.total() == len(outcomes):
            raise DataError(
                f"every file of {config.source} was refused: {_reasons(rejections)}; first: {outcomes[0].detail}"
            )
        taken = [outcome for outcome in outcomes if outcome.reason is None]
        examples = [outcome.example for outcome in taken]
        try:
            warnings = splits.check_classes(examples) + splits.unnamed_patients(examples)
        except DataError as error:
            raise DataError(f"after refusals ({_reasons(rejections)}) {error}") from error
        return {
            "image_size": config.image_size,
            "layout": config.layout,
            "body_parts": list(config.body_parts) if config.layout == "mura" else [],
            "validation_fraction": config.validation_fraction,
            "test_fraction": config.test_fraction,
            "seed": config.seed,
            "simulated": sources.is_simulated(config.source, config.layout),
            "preprocessing": radiograph.PREPROCESSING,
            "fingerprint": summary.fingerprint(
                [outcome.example for outcome in outcomes],
                [outcome.sha256 for outcome in outcomes],
                config.image_size,
            ),
            "splits": {
                split: dataclasses.asdict(counts)
                for split, counts in summary.count(outcomes).items()
            },
            "rejections": dict(sorted(rejections.items())),
            "slices": sorted({name for outcome in taken for name in outcome.attributes}),
            "warnings": warnings + summary.duplicates(outcomes),
        }


def _record(outcome: Encoded) -> dict[str, Any]:
    example = outcome.example
    return {
        # Bytes that are PNG already pass through the image feature unchanged.
        "image": outcome.png,
        "label": example.label,
        "patient_id": example.patient_id,
        "study_id": example.study_id,
        "path": example.path,
        "attributes": json.dumps(outcome.attributes, sort_keys=True, ensure_ascii=False),
    }


def _reasons(rejections: Counter) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in rejections.most_common())
