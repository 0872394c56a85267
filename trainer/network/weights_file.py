"""Check and fetch the file of pre-trained weights that a setting names."""

import contextlib
import os
import zipfile
from collections.abc import Iterator

import h5py

from trainer import storage
from trainer.errors import ConfigError


@contextlib.contextmanager
def copy_to_local(path: str) -> Iterator[str]:
    """Yield the path of a local copy, since Keras reads weights from local files only.

    `~` at the beginning of the path is the home folder.

    Raises:
      ConfigError: there is no such file, or it is damaged.
    """
    path = os.path.expanduser(path)  # noqa: PTH111, a URL is not a path
    expected = "expected imagenet, none, a weights file (.h5), a .keras file or an artifact"
    if not storage.exists(path):
        raise ConfigError(f"weights={path!r}: no such file; {expected}")
    if os.path.isdir(path):  # noqa: PTH112
        raise ConfigError(f"weights={path!r} is a folder; {expected}")
    with storage.local_file(path) as local:
        try:
            (h5py.File if path.endswith(".h5") else zipfile.ZipFile)(local).close()
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"weights={path!r} is not a file of Keras weights, or it is cut short"
                f" ({error}); copy it again"
            ) from error
        yield local
