"""Radiographs of any source -> sharded TFRecords of square grey images, split by patient."""

import contextlib
import io
import json
import posixpath
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from trainer import storage
from trainer.dataset import publish, sources, summary
from trainer.dataset.encode import content_hash, in_threads
from trainer.dataset.locate import INFO_FILE, NAME
from trainer.dataset.radiographs_dataset_builder import (
    DEFAULT_BODY_PARTS,
    Builder,
    RadiographsConfig,
)
from trainer.dataset.summary import Summary
from trainer.errors import ConfigError, DataError

_SOUGHT_IN_BUCKET = 100


def prepare(
    source: str,
    layout: str,
    data_dir: str,
    image_size: int = 320,
    body_parts: Sequence[str] = DEFAULT_BODY_PARTS,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Writes `data_dir/radiographs/<config>/<version>/`.

    A data set that is there already is kept when it was made of the same content in the same way.

    Args:
      source: folder, or the CSV file of a manifest; local or `gs://`.
      layout: `mura`, `folders` or `manifest`.
      data_dir: root of the data sets; local or `gs://`.
      image_size: side of the square in pixels.
      body_parts: of the MURA layout, or `all`.
      validation_fraction: of all patients, in [0, 1), where the source names no validation split.
      test_fraction: of all patients, in [0, 1), where the source names no test split.
      seed: of the draw of patients.
      overwrite: replace a data set that differs. It stays until the new one is complete.
      dry_run: write nothing; the counts are then of files that were listed, not of images that could be read.

    Raises:
      ConfigError: an option is wrong, or another data set is in the way.
      DataError: the source is wrong. Nothing has been written.
    """
    if not source:
        raise ConfigError(
            "no source: name the folder or the CSV file that the radiographs come from"
        )
    config = RadiographsConfig(
        source=source,
        layout=layout,
        image_size=image_size,
        body_parts=tuple(body_parts),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    if not data_dir:
        raise ConfigError("no data_dir: name the folder that the data set is to be written to")
    target = posixpath.join(data_dir, NAME, config.name, str(Builder.VERSION))
    _ = config.examples  # all guards, before there is anything to clean up
    if dry_run:
        return _kept(target, config, overwrite) or _planned(target, config)
    with publish.workspace(data_dir) as folder:
        if kept := _kept(target, config, overwrite):
            return kept
        builder = Builder(data_dir=folder, config=config)
        _build(builder)
        publish.publish(builder.data_dir, target, folder)
        return Summary.of(target, builder.info.metadata, reused=False)


def _kept(target: str, config: RadiographsConfig, overwrite: bool) -> Summary | None:
    """The data set that is there already, made of the same; None where there is none that should stay.

    Raises:
      ConfigError: it was made of something else.
    """
    found = None if overwrite else _metadata_of(target)
    if found is None:
        return None
    examples = config.examples
    if found.get("fingerprint") != summary.fingerprint(
        examples, in_threads(content_hash, examples), config.image_size
    ):
        raise ConfigError(
            f"{target} holds a data set of other content or options; pass --overwrite to replace it"
        )
    return Summary.of(target, found, reused=True)


def _planned(target: str, config: RadiographsConfig) -> Summary:
    """What would be written, as far as that is known without opening a file.

    Raises:
      DataError: a manifest lists nothing that is there.
    """
    # Asking a bucket for each of a million objects would take hours: the first ones tell whether the paths are right.
    local = [example for example in config.examples if not storage.is_remote(example.uri)]
    sought = local or config.examples[:_SOUGHT_IN_BUCKET]
    there = in_threads(lambda example: storage.exists(example.uri), sought)
    missing = [example for example, found in zip(sought, there, strict=True) if not found]
    if len(missing) == len(sought):
        which = "files" if len(sought) == len(config.examples) else f"first {len(sought)} files"
        raise DataError(
            f"none of the {which} that {config.source} lists is there; first: there is no file {missing[0].uri}"
        )
    return Summary.of_plan(
        target, config.examples, missing, sources.is_simulated(config.source, config.layout)
    )


def _build(builder: Builder) -> None:
    """Runs TFDS offline and quietly: its bars would run over ours, and its messages name a folder that is about to move."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    finally:
        tfds.enable_progress_bar()


def _metadata_of(target: str) -> dict[str, Any] | None:
    """What the finished data set at `target` says of itself; None where there is none."""
    if not storage.exists(posixpath.join(target, INFO_FILE)):
        return None
    metadata = storage.read_bytes(posixpath.join(target, "metadata.json"))
    return json.loads(metadata) if metadata else {}
