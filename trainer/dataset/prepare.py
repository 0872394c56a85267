"""Prepare a source as sharded TFRecords of square grey images, split by patient."""

import contextlib
import dataclasses
import errno
import io
import pathlib
import posixpath
import shutil
import tempfile
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from trainer import storage
from trainer.dataset import summary
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.encode import MISSING, Encoded, content_hash
from trainer.dataset.locate import INFO_FILE, NAME
from trainer.dataset.radiographs_dataset_builder import Builder, RadiographsConfig
from trainer.dataset.summary import Summary
from trainer.dataset.threads import map_in_threads
from trainer.errors import ConfigError, DataError
from trainer.options import PrepareOptions
from trainer.program import run_lock

_CHECKED_IN_BUCKET = 100  # files that a dry run looks for in a bucket
_WORKSPACE = ".incomplete"


def prepare(options: PrepareOptions, dry_run: bool = False) -> Summary:
    """Write the data set `data_dir/radiographs/<config>/<version>/`.

    An existing data set is kept if it was made from the same content with the same options. Another
    one is only replaced with `options.overwrite`, and stays until the new one is complete.

    Args:
      options: source and `data_dir` may be local or `gs://`.
      dry_run: write nothing. The counts are then of listed files, not of readable images.

    Raises:
      ConfigError: an option is wrong, another data set exists, or another run writes there.
      DataError: the source is wrong. Nothing is written.
    """
    if not options.source:
        raise ConfigError("source is empty; name the folder or the CSV file of the radiographs")
    if not options.data_dir:
        raise ConfigError("data_dir is empty; name the folder to write the data set to")
    given = vars(options).items()
    config = RadiographsConfig(
        **{name: value for name, value in given if name not in ("data_dir", "overwrite")}
    )
    place = posixpath.join(options.data_dir, NAME, config.name)
    target = posixpath.join(place, str(Builder.VERSION))
    _ = config.examples  # runs all checks of the source before there is anything to clean up
    if dry_run:
        return _find_existing(target, config, options.overwrite) or _plan(target, config)
    _check_replaceable(target)
    with run_lock.hold(place, "humerus-prepare"), _make_workspace(place) as folder:
        if existing := _find_existing(target, config, options.overwrite):
            return existing
        builder = Builder(data_dir=folder, config=config)
        _build(builder, target)
        _publish(str(builder.data_dir), target, folder)
        return Summary(target, DatasetInfo.parse(builder.info.metadata, target), reused=False)


def _check_replaceable(target: str) -> None:
    """Check that replacing a folder deletes no other files: it must be empty, or hold a data set.

    One in a bucket is not checked: it is replaced file by file, so that a stop may leave any part.

    Raises:
      ConfigError: it holds other files.
    """
    names = [] if storage.is_remote(target) else storage.list_folder(target)
    if names and INFO_FILE not in names:
        raise ConfigError(
            f"{target} holds {names[0]}, but no {INFO_FILE}; all that is in it would be deleted:"
            " move it away, or name another --data_dir"
        )


@contextlib.contextmanager
def _make_workspace(place: str) -> Iterator[str]:
    """Yield an empty local folder to build in, which is removed afterwards.

    For a local `place` it lies inside, on the same file system.
    """
    if storage.is_remote(place):
        with tempfile.TemporaryDirectory(prefix="humerus-prepare-") as folder:
            yield folder
        return
    workspace = pathlib.Path(place, _WORKSPACE)
    shutil.rmtree(workspace, ignore_errors=True)  # of a run that was killed
    workspace.mkdir(parents=True)
    try:
        yield str(workspace)
    finally:
        shutil.rmtree(workspace)


def _publish(built: str, target: str, workspace: str) -> None:
    """Put a finished directory in the place of whatever is at `target`, completely or not at all.

    A data set that is replaced is removed with the workspace.
    """
    if storage.is_remote(target):
        storage.replace_folder(pathlib.Path(built), target, mark=INFO_FILE)
        return
    place = pathlib.Path(target)
    if place.exists():
        place.rename(pathlib.Path(workspace, "replaced"))
    pathlib.Path(built).rename(place)


def _find_existing(target: str, config: RadiographsConfig, overwrite: bool) -> Summary | None:
    """Return the existing data set, or None if there is none or it is to be replaced.

    Raises:
      ConfigError: it was made from other content or with other options.
      DataError: its metadata are damaged.
    """
    if overwrite or not storage.exists(posixpath.join(target, INFO_FILE)):
        return None
    remedy = "pass --overwrite to replace the data set"
    metadata = storage.read_json(posixpath.join(target, "metadata.json"), remedy)
    if metadata is None:
        raise DataError(f"{target} lacks its metadata.json; {remedy}")
    info, examples = DatasetInfo.parse(metadata, target), config.examples
    if info.fingerprint != summary.compute_fingerprint(
        examples, map_in_threads(content_hash, examples), config.image_size
    ):
        raise ConfigError(
            f"{target} holds a data set of other content or options; pass --overwrite to replace "
            "it, or name another --data_dir"
        )
    return Summary(target, info, reused=True)


def _plan(target: str, config: RadiographsConfig) -> Summary:
    """Return what would be written, as far as that is known without opening a file.

    Raises:
      DataError: none of the files that a manifest lists exists.
    """
    # Asking a bucket for each of a million objects would take hours. The first ones tell whether
    # the paths are right.
    local = [example for example in config.examples if not storage.is_remote(example.uri)]
    sought = local or config.examples[:_CHECKED_IN_BUCKET]
    there = map_in_threads(lambda example: storage.exists(example.uri), sought)
    missing = [example for example, found in zip(sought, there, strict=True) if not found]
    if len(missing) == len(sought):
        which = "files" if len(sought) == len(config.examples) else f"first {len(sought)} files"
        raise DataError(
            f"none of the {which} that {config.source} lists exists; the first is {missing[0].uri}:"
            " paths are relative to the folder of the manifest; correct its column of paths"
        )
    absent = {example.path for example in missing}
    info = config.describe(
        [
            Encoded(example, sha256="", reason=MISSING if example.path in absent else None)
            for example in config.examples
        ]
    )
    warnings = info.warnings
    if missing:
        warnings += (f"listed files that are missing: {len(missing)}, such as {missing[0].uri}",)
    info = dataclasses.replace(info, fingerprint="", warnings=warnings)
    return Summary(target, info, reused=False, dry_run=True)


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
    except OSError as error:
        if not str(error).startswith("Not enough disk space"):  # TFDS's own check
            raise
        with storage.explain_write_error(target):
            raise OSError(errno.ENOSPC, "") from error
    finally:
        tfds.enable_progress_bar()
