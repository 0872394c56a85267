"""Save and restore checkpoints: the variables and the state of the loop, committed together.

`ckpt-STEP.index` and `.data-*` hold the variables. `ckpt-STEP.json` holds the state; it is written
last and is the commit mark. A killed writer leaves no mark, so that what it left is never read.
"""

import json
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from trainer import storage
from trainer.errors import ConfigError, DataError, StorageOutageError
from trainer.files import atomic_file

_MARK = re.compile(r"ckpt-(\d+)\.json")
_PART = re.compile(r"ckpt-(\d+)\.(json|index|data-\d+-of-\d+)")
_TEMPORARY = re.compile(r"ckpt-\d+(_temp|\.(index|data-\d+-of-\d+)\.?tempstate\d+)")
"""Names of the files that TensorFlow renames to parts."""
# IndexError: TensorFlow's way to say that a file was cut short.
_UNREADABLE = (tf.errors.OpError, OSError, ValueError, AssertionError, IndexError)


class Checkpoints:
    """The checkpoint folder of one run, local or in a bucket."""

    def __init__(
        self,
        directory: str,
        variables: Sequence[tf.Variable],
        keep: int,
        is_chief: bool = True,
    ):
        """Keep the last `keep` checkpoints of `variables`, in this order; only the chief writes."""
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(variables=list(variables))
        self._keep = keep
        self._is_chief = is_chief

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Commit the variables and `state` (JSON-able) after `step` steps; remove the oldest.

        Checkpoints of later steps are removed too: the run could not read them and went on from an
        earlier one.

        Raises:
          OSError: it can't be written; the earlier ones are intact.
        """
        if not self._is_chief:
            return
        prefix = self._prefix(step)
        with storage.explain_write_error(f"the checkpoint {prefix}"):
            self._write_variables(prefix)
        storage.write_text(prefix + ".json", json.dumps(state))
        names = storage.list_folder(self._directory)
        steps = _find_committed(names)
        kept = [earlier for earlier in steps if earlier <= step][-self._keep :]
        for dropped in set(steps) - set(kept):
            self._remove(dropped, names)

    def restore(self) -> Mapping[str, Any] | None:
        """Restore the newest readable checkpoint and return its state; None where there is none.

        Raises:
          DataError: there are some, and none can be read.
        """
        steps = _find_committed(storage.list_folder(self._directory))
        for step in reversed(steps):
            prefix = self._prefix(step)
            try:
                state = json.loads(storage.read_bytes(prefix + ".json") or "")
                if not (isinstance(state, dict) and state):
                    raise ValueError("its .json file does not say how far the run had come")
                self._checkpoint.read(prefix).assert_existing_objects_matched()
                return state
            except _UNREADABLE as error:
                if isinstance(storage.translate_error(error), StorageOutageError):
                    raise
                logging.error(
                    "The checkpoint %s can't be read (%s); trying the one before it.",
                    prefix,
                    str(error).splitlines()[0],
                )
        if steps:  # the variables may hold half of a checkpoint, which is no state to start from
            all_of_run = self._directory.removesuffix("/best")
            raise DataError(
                f"no checkpoint in {self._directory} can be read; remove {all_of_run} to start"
                " again"
            )
        return None

    def _write_variables(self, prefix: str) -> None:
        storage.make_folder(self._directory)
        if not storage.is_remote(prefix):
            self._checkpoint.write(prefix)
            return
        # Into a bucket directly, TensorFlow writes, lists, copies and deletes temporary objects,
        # which takes dozens of requests.
        with tempfile.TemporaryDirectory() as folder:
            self._checkpoint.write(f"{folder}/{pathlib.PurePosixPath(prefix).name}")
            for path in pathlib.Path(folder).iterdir():
                storage.copy(path, f"{self._directory}/{path.name}")

    def _prefix(self, step: int) -> str:
        return f"{self._directory}/ckpt-{step:08d}"

    def _remove(self, step: int, names: Sequence[str]) -> None:
        """Remove a checkpoint, its commit mark first, so that half of one is never read."""
        mark = f"{pathlib.PurePosixPath(self._prefix(step)).name}.json"
        parts = [
            name for name in names if name.startswith(mark.removesuffix("json")) and name != mark
        ]
        for name in [mark, *parts]:
            storage.remove_file(f"{self._directory}/{name}")


def _find_committed(names: Sequence[str]) -> list[int]:
    """Return the steps whose commit mark is among these names, ascending."""
    return sorted(int(mark[1]) for name in names if (mark := _MARK.fullmatch(name)))


def remove_partial_files(folder: str) -> None:
    """Remove the temporary files that killed writers left in a folder."""
    for name in storage.list_folder(folder):
        if atomic_file.is_partial(name):
            storage.remove_file(f"{folder}/{name}")


def remove_leftovers(folder: str) -> None:
    """Remove what killed writers left: temporary files, and checkpoints without a commit mark."""
    names = storage.list_folder(folder)
    committed = set(_find_committed(names))
    for name in names:
        part = _PART.fullmatch(name.rstrip("/"))
        is_left = part and int(part[1]) not in committed
        if is_left or atomic_file.is_partial(name) or _TEMPORARY.fullmatch(name.rstrip("/")):
            storage.remove(f"{folder}/{name.rstrip('/')}")


def read_settings(path: str) -> dict[str, Any] | None:
    """Return the settings that a run recorded; None where it has recorded none.

    Raises:
      DataError: the file is damaged.
    """
    return storage.read_json(path, "restore that file, or name another --workdir")


def check_same_run(path: str, settings: Mapping[str, Any]) -> None:
    """Check that a run continues under the settings that its first call wrote to `path`.

    Raises:
      ConfigError: some differ; the message names them.
      DataError: the file is damaged or missing.
    """
    settings = json.loads(json.dumps(settings))
    if (earlier := read_settings(path)) is None:
        folder, _, name = path.rpartition("/")
        raise DataError(
            f"{folder} holds checkpoints or results, but no {name} that says how they were made;"
            " restore that file, or name another --workdir"
        )
    changes = "; ".join(
        f"{key} was {earlier.get(key)!r} and is {settings.get(key)!r}"
        for key in sorted({*earlier, *settings})
        if earlier.get(key) != settings.get(key)
    )
    if changes:
        raise ConfigError(
            f"{os.path.dirname(path)} holds a run with other settings: {changes};"
            " name another --workdir, or restore the settings"
        )
