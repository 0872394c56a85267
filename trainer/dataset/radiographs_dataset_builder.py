"""Build the data set with TensorFlow Datasets: TFRecord shards that are readable without this code.

`humerus-prepare` runs the builder. TFDS's own command can run it too, after
`pip install mlcroissant`. The source is then --manual_dir, unless a configuration names one:

    tfds build radiographs --imports=trainer.dataset.radiographs_dataset_builder
    --manual_dir=MURA-v1.1 --data_dir=data ... --config='{"layout": "manifest", "source":
    "labels.csv", "image_size": 256}'
"""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from trainer import radiograph
from trainer.dataset import mura, sources, splits, summary
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.encode import Encoded, encode
from trainer.dataset.example import LABELS, SPLITS, Example
from trainer.dataset.listing import Listing
from trainer.dataset.threads import map_in_threads
from trainer.errors import ConfigError, DataError
from trainer.options import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, PrepareOptions


@dataclasses.dataclass(eq=False)
class RadiographsConfig(tfds.core.BuilderConfig):
    """Describes one source at one image size; `name` follows from layout, body parts and size.

    The other fields are those of `PrepareOptions`. If `source` is empty, the builder takes TFDS's
    --manual_dir.
    """

    name: str = ""
    source: str = ""
    layout: str = "mura"
    image_size: int = PrepareOptions.image_size
    body_parts: tuple[str, ...] = PrepareOptions.body_parts
    validation_fraction: float = PrepareOptions.validation_fraction
    test_fraction: float = PrepareOptions.test_fraction
    seed: int = PrepareOptions.seed

    def __post_init__(self) -> None:
        self.body_parts = tuple(sorted({part.strip() for part in self.body_parts} - {""}))
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(
                f"image_size must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, "
                f"got {self.image_size}"
            )
        if not self.body_parts:
            raise ConfigError(
                "no body part is given; name one or several, such as "
                f"{PrepareOptions.body_parts[0]}, or {mura.ALL_BODY_PARTS!r}"
            )
        splits.check_fractions(self.validation_fraction, self.test_fraction)
        has_parts = self.layout in ("mura", "fracatlas")
        parts = [part.lower() for part in self.body_parts] if has_parts else []
        self.name = "_".join([self.layout, *parts, str(self.image_size)])
        self.description = (
            f"Layout {self.layout}, letterboxed to {self.image_size} x {self.image_size} pixels."
        )

    @functools.cached_property
    def listing(self) -> Listing:
        """Return the files of the source, without splits."""
        return sources.list_source(self.source, self.layout, self.body_parts)

    @functools.cached_property
    def examples(self) -> list[Example]:
        """Return the files to open with their splits, which are checked.

        Raises:
          ConfigError, DataError: the source cannot be prepared.
        """
        examples = splits.assign(
            self.listing.examples, self.validation_fraction, self.test_fraction, self.seed
        )
        splits.check_groups(examples)
        splits.check_classes(examples)
        return examples

    def describe(self, outcomes: Sequence[Encoded]) -> DatasetInfo:
        """Return the metadata of the data set that these outcomes of all examples make.

        Raises:
          DataError: no file was taken, or none of a label to train on.
        """
        rejections = Counter(outcome.reason for outcome in outcomes if outcome.reason)
        taken = [outcome for outcome in outcomes if outcome.reason is None]
        if not taken:
            raise DataError(
                f"every file of {self.source} was refused: {_format_counts(rejections)}; "
                f"first: {outcomes[0].detail}"
            )
        examples = [outcome.example for outcome in taken]
        try:
            warnings = splits.check_classes(examples) + splits.list_patient_warnings(examples)
        except DataError as error:
            raise DataError(f"after refusals ({_format_counts(rejections)}) {error}") from error
        return DatasetInfo(
            image_size=self.image_size,
            layout=self.layout,
            body_parts=tuple(self.listing.body_parts),
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
            simulated=sources.is_simulated(self.source, self.layout),
            preprocessing=radiograph.PREPROCESSING,
            fingerprint=summary.compute_fingerprint(
                [outcome.example for outcome in outcomes],
                [outcome.sha256 for outcome in outcomes],
                self.image_size,
            ),
            splits=summary.count_by_split(outcomes),
            rejections=dict(sorted(rejections.items())),
            omissions=summary.count_omissions(self.listing.omissions),
            slices=tuple(sorted({name for outcome in taken for name in outcome.attributes})),
            warnings=(
                *self.listing.warnings,
                *warnings,
                *summary.list_duplicate_warnings(outcomes),
                *summary.list_image_warnings(outcomes),
            ),
        )


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes the radiographs of a `RadiographsConfig` as squares of one size."""

    BUILDER_CONFIGS = [RadiographsConfig()]  # noqa: RUF012 - TFDS reads this attribute
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Radiographs are not downloaded: --manual_dir names the folder that holds them, "
        "such as MURA-v1.1."
    )
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS reads this attribute

    # TFDS would look for checksums of downloads with a package that it does not install. There are
    # no downloads.
    url_infos = None

    def _create_builder_config(
        self, builder_config: RadiographsConfig | str | None, version: Any
    ) -> RadiographsConfig:
        if isinstance(builder_config, RadiographsConfig):
            return builder_config  # TFDS would warn that it is not in `BUILDER_CONFIGS`
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
            # TFDS fails on a split without examples, so a split whose files were all refused must
            # not be declared.
            if (first := next(generator, None)) is not None:
                generators[split] = itertools.chain([first], generator)
        return generators

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        chosen = [example for example in self._config.examples if example.split == split]
        for outcome in map_in_threads(
            functools.partial(encode, image_size=self._config.image_size), chosen
        ):
            self._progress.update()
            self._outcomes.append(dataclasses.replace(outcome, png=None))
            if outcome.png is not None:
                yield outcome.example.path, _make_record(outcome)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        # TFDS calls this while the directory still has its temporary name. So everything that is
        # written here appears with the data set, or nothing does.
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
        self.info.metadata.update(dataclasses.asdict(self._config.describe(self._outcomes)))
        (self.data_path / summary.REJECTIONS_FILE).write_text(
            summary.format_rejections(self._outcomes, self._config.listing.omissions)
        )


def _make_record(outcome: Encoded) -> dict[str, Any]:
    example = outcome.example
    return {
        # The image feature stores bytes that are PNG already without a change.
        "image": outcome.png,
        "label": example.label,
        "patient_id": example.patient_id,
        "study_id": example.study_id,
        "path": example.path,
        "attributes": json.dumps(outcome.attributes, sort_keys=True, ensure_ascii=False),
    }


def _format_counts(rejections: Counter) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in rejections.most_common())
