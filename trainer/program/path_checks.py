"""Check the local paths of a command line before anything heavy is imported.

A wrong path is then refused at once. Paths in a bucket, and what files hold, are checked where they
are read.
"""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from trainer.errors import ConfigError, DataError
from trainer.files.urls import absolute, is_remote
from trainer.program.text_escaping import escape_name


def check_writable(flag: str, folder: str, given: str = "") -> None:
    """Raise `ConfigError` if a flag names a local folder that cannot be made or written to.

    Args:
      given: what the flag names, where that is a file in the folder.
    """
    if is_remote(folder):
        return
    given = given or folder
    whole = pathlib.Path(folder).absolute()
    place = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not place.is_dir():
        raise ConfigError(
            f"--{flag}={given} cannot be written (Not a directory: {place}); choose another folder"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--{flag}={given} cannot be written (no right to write in {place}); "
            "choose another folder"
        )


def check_file_writable(flag: str, path: str) -> None:
    """Raise `ConfigError` if a flag names a local file that cannot be written."""
    if is_remote(path):
        return
    if os.path.isdir(path):  # noqa: PTH112
        raise ConfigError(f"--{flag}={path} is a folder; name a file in it")
    # The file is put in the place of what is there, be it `/dev/null`.
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):  # noqa: PTH110, PTH113, PTH114
        raise ConfigError(
            f"--{flag}={path} is a link, a device or a pipe; name a file, or a new one"
        )
    check_writable(flag, str(pathlib.PurePath(path).parent), path)


def check_not_taken(flag: str, path: str, options: Any) -> None:
    """Raise `ConfigError` if another flag names the file that a flag writes, or its artifact."""
    place = absolute(path)
    for field in dataclasses.fields(options):
        other, is_path = field.name, field.metadata.get("schemes") is not None
        if other == flag or not is_path or not getattr(options, other):
            continue
        taken = absolute(getattr(options, other))
        in_artifact = other in ("model", "baseline") and place.startswith(f"{taken}/")
        if place == taken or in_artifact:
            raise ConfigError(
                f"--{flag}={path} would overwrite what --{other} names"
                f"{', or a part of it' if in_artifact else ''}; choose another file"
            )


def check_artifact(model: str, flag: str = "model") -> None:
    """Raise `ConfigError` if a flag names a local path that is no artifact.

    Args:
      flag: its name; "" for an argument without one.
    """
    if is_missing(model, "model.json"):
        named = f"--{flag}={model}" if flag else model
        raise ConfigError(
            f"{named} is not an exported model (no model.json there); name the `artifact` "
            "folder of a run"
        )


def check_source(source: str, layout: str) -> None:
    """Raise `DataError` if a source of labelled images is a local path that its layout can't be."""
    if is_remote(source):
        return
    if layout == "manifest" and is_missing(source):
        raise DataError(
            f"{source} is not a file; the manifest layout expects a CSV file with the columns "
            "path,label"
        )
    if layout != "manifest" and not os.path.isdir(source):  # noqa: PTH112, as in `is_missing`
        csv = "" if is_missing(source) else ", or --layout=manifest for a CSV file"
        raise DataError(f"{source} is not a folder; name the one that holds the images{csv}")


def check_images(folder: str) -> None:
    """Raise `DataError` if the images to measure on are a local path that is no folder."""
    if not is_remote(folder) and not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(
            f"{folder} is not a folder with images to measure on; name the folder of the images"
        )


def check_input(location: str) -> None:
    """Raise `DataError` if the input of the scorer is a local path that doesn't exist."""
    is_text = location.isprintable()  # the scorer refuses bytes that are not UTF-8
    if is_text and not glob.has_magic(location) and is_missing(location):
        raise DataError(
            f"nothing to score: no file matches {location}; "
            "expected a folder, a glob or a manifest with files in it"
        )


def check_scored(scored: str) -> None:
    """Raise `DataError` if a local folder is not that of a run."""
    if is_missing(scored, "run.json"):
        raise DataError(
            f"{scored} is not the folder of a finished run: its run.json cannot be read "
            "(No such file or directory); name the --output of humerus-score"
        )


def check_radiographs(paths: Sequence[str]) -> None:
    """Raise `DataError` if every one of several paths is local and absent."""
    if paths and all(map(is_missing, paths)):
        reasons = "; ".join(f"{escape_name(path)}: cannot be opened or read" for path in paths)
        raise DataError(f"none of the images can be read: {reasons}")


def check_folder(flag: str, path: str) -> None:
    """Raise `DataError` if a flag names a local folder that doesn't exist."""
    if not is_remote(path) and not os.path.isdir(path):  # noqa: PTH112
        raise DataError(f"--{flag}={path} is not a folder; check the path")


def check_file(flag: str, path: str) -> None:
    """Raise `DataError` if a flag names a local path that doesn't exist."""
    if is_missing(path):
        raise DataError(f"--{flag}={path} does not exist; check the path")


def check_weights(weights: str) -> None:
    """Raise `ConfigError` if the setting `weights` names a local path that is absent."""
    if weights not in ("imagenet", "none") and is_missing(
        os.path.expanduser(weights)  # noqa: PTH111, a URL is not a path
    ):
        raise ConfigError(
            f"weights={weights!r}: no such file; expected imagenet, none, a weights file (.h5),"
            " a .keras file or an artifact"
        )


def is_missing(path: str, name: str = "") -> bool:
    """Return whether a path is local and absent, or a folder without a file of this name."""
    # Unlike pathlib's, this is false too for a name that is too long, or in a closed folder.
    return not is_remote(path) and not os.path.exists(pathlib.PurePath(path, name))  # noqa: PTH110
