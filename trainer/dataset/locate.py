"""From the --data_dir of a command to the one data set in it."""

import posixpath

from trainer import storage
from trainer.errors import ConfigError, DataError

NAME = "radiographs"
INFO_FILE = "dataset_info.json"


def locate(data_dir: str) -> str:
    """The directory for `tfds.builder_from_directory`: `data_dir` itself, or the single data set that was prepared in it.

    Raises:
      DataError: none there.
      ConfigError: several there.
    """
    data_dir = data_dir.rstrip("/") or "/"
    if storage.exists(posixpath.join(data_dir, INFO_FILE)):
        return data_dir
    found = sorted(
        posixpath.dirname(path)
        for path in storage.glob(posixpath.join(data_dir, NAME, "*", "*", INFO_FILE))
    )
    # TFDS writes below `incomplete.*` until all is there.
    found = [path for path in found if not posixpath.basename(path).startswith("incomplete.")]
    if not found:
        raise DataError(
            f"{data_dir} holds no prepared data set; make one with humerus-prepare --data_dir={data_dir}"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{data_dir} holds {len(found)} data sets; name one of them as --data_dir: {', '.join(found)}"
        )
    return found[0]
