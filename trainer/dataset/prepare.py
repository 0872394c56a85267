"""Prepare a source as sharded TFRecords of square grey images, split by patient."""

import contextlib
import io
import posixpath
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from trainer import storage
from trainer.dataset import publish, sources, summary
from trainer.dataset.encode import content_hash, in_threads
from trainer.dataset.locate import INFO_FILE, NAME
from trainer.dataset.radiographs_dataset_builder import Builder, RadiographsConfig
from trainer.dataset.summary import Summary
from trainer.errors import ConfigError, DataError
from trainer.options import PrepareOptions

_CHECKED_IN_BUCKET = 100  # files that a dry run looks for in a bucket


def prepare(
    source: str,
    layout: str,
    data_dir: str,
    image_size: int = PrepareOptions.image_size,
    body_parts: Sequence[str] = PrepareOptions.body_parts,
    validation_fraction: float = PrepareOptions.validation_fraction,
    test_fraction: float = PrepareOptions.test_fraction,
    seed: int = PrepareOptions.seed,
    overwrite: bool = PrepareOptions.overwrite,
    dry_run: bool = False,
) -> Summary:
    """Write the data set `data_dir/radiographs/<config>/<version>/`.

    An existing data set is kept if it was made from the same content with the same options.

    Args:
      source: folder, or the CSV file of a manifest; local or `gs://`.
      layout: one of `options.LAYOUTS`, such as `mura` or `manifest`.
      data_dir: root of the data sets; local or `gs://`.
      image_size: side of the square in pixels.
      body_parts: body parts of MURA or FracAtlas, or `all`; other layouts ignore them.
      validation_fraction: share of all patients, in [0, 1), if the source has no validation split.
      test_fraction: share of all patients, in [0, 1), if the source has no test split.
      seed: seed of the assignment of patients to splits.
      overwrite: replace another data set, which stays until the new one is complete.
      dry_run: write nothing. The counts are then of listed files, not of readable images.

    Raises:
      ConfigError: an option is wrong, or another data set exists.
      DataError: the source is wrong. Nothing is written.
    """
    if not source:
        raise ConfigError("source is empty; name the folder or the CSV file of the radiographs")
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
        raise ConfigError("data_dir is empty; name the folder to write the data set to")
    target = posixpath.join(data_dir, NAME, config.name, str(Builder.VERSION))
    _ = config.examples  # runs all checks of the source before there is anything to clean up
    if dry_run:
        return _find_existing(target, config, overwrite) or _plan(target, config)
    publish.check_replaceable(target)
    with publish.workspace(data_dir) as folder:
        if existing := _find_existing(target, config, overwrite):
            return existing
        builder = Builder(data_dir=folder, config=config)
        _build(builder, target)
        publish.publish(builder.data_dir, target, folder)
        return Summary.from_metadata(target, builder.info.metadata, reused=False)


def _find_existing(target: str, config: RadiographsConfig, overwrite: bool) -> Summary | None:
    """Return the existing data set, or None if there is none or it is to be replaced.

    Raises:
      ConfigError: it was made from other content or with other options.
    """
    found = None if overwrite else _read_metadata(target)
    if found is None:
        return None
    examples = config.examples
    if found.get("fingerprint") != summary.compute_fingerprint(
        examples, in_threads(content_hash, examples), config.image_size
    ):
        raise ConfigError(
            f"{target} holds a data set of other content or options; pass --overwrite to replace "
            "it, or name another --data_dir"
        )
    return Summary.from_metadata(target, found, reused=True)


def _plan(target: str, config: RadiographsConfig) -> Summary:
    """Return what would be written, as far as that is known without opening a file.

    Raises:
      DataError: none of the files that a manifest lists exists.
    """
    # Asking a bucket for each of a million objects would take hours. The first ones tell whether
    # the paths are right.
    local = [example for example in config.examples if not storage.is_remote(example.uri)]
    sought = local or config.examples[:_CHECKED_IN_BUCKET]
    there = in_threads(lambda example: storage.exists(example.uri), sought)
    missing = [example for example, found in zip(sought, there, strict=True) if not found]
    if len(missing) == len(sought):
        which = "files" if len(sought) == len(config.examples) else f"first {len(sought)} files"
        raise DataError(
            f"none of the {which} that {config.source} lists exists; the first is {missing[0].uri}"
        )
    simulated = sources.is_simulated(config.source, config.layout)
    return Summary.from_plan(target, config.listing, config.examples, missing, simulated)


def _build(builder: Builder, target: str) -> None:
    """Run TFDS offline and without output; `target` is where the data set will lie.

    Its progress bars would overwrite ours, and its messages name a folder that is about to move.
    """
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except RuntimeError as error:
        # It raises TensorFlow's errors of writing anew, as what they caused.
        if not isinstance(error.__cause__, tf.errors.OpError):
            raise
        with storage.explain_write_error(target):
            raise error.__cause__ from None
    finally:
        tfds.enable_progress_bar()


def _read_metadata(target: str) -> dict[str, Any] | None:
    """Return the metadata of the finished data set at `target`; None if there is none.

    Raises:
      DataError: they are damaged.
    """
    if not storage.exists(posixpath.join(target, INFO_FILE)):
        return None
    path = posixpath.join(target, "metadata.json")
    remedy = "pass --overwrite to replace the data set"
    if (found := storage.read_json(path, remedy)) is None:
        raise DataError(f"{target} lacks its metadata.json; {remedy}")
    return found
