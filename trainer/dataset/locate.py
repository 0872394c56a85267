"""Find the data set in the --data_dir of a command."""

import posixpath

from trainer import storage
from trainer.errors import ConfigError, DataError

NAME = "radiographs"
INFO_FILE = "dataset_info.json"


def locate(data_dir: str) -> str:
    """Return the directory for `tfds.builder_from_directory`.

    It is `data_dir` itself, or the only data set that was prepared in it.

    Raises:
      DataError: there is no data set.
      ConfigError: there are several.
    """
    data_dir = data_dir.rstrip("/") or "/"
    if storage.exists(posixpath.join(data_dir, INFO_FILE)):
        return data_dir
    found = sorted(
        posixpath.dirname(path)
        for path in storage.glob(posixpath.join(data_dir, NAME, "*", "*", INFO_FILE))
    )
    # TFDS writes to `incomplete.*` until the data set is complete.
    found = [path for path in found if not posixpath.basename(path).startswith("incomplete.")]
    if not found:
        raise DataError(
            f"{data_dir} holds no prepared data set; make one with humerus-prepare"
            " --source=RADIOGRAPHS --layout=LAYOUT --data_dir=DIR, and name that DIR here"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{data_dir} holds {len(found)} data sets; name one of them as --data_dir: "
            f"{', '.join(found)}"
        )
    return found[0]
