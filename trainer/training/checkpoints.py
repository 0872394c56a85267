"""Checkpoints that can be trusted: variables and the loop's own state, committed together, the last few kept.

`ckpt-STEP.index` and `.data-*` hold the variables; `ckpt-STEP.json`, written last, is the commit mark and holds the rest. A
killed writer leaves no mark, so what it left is never read.
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
from trainer.errors import ConfigError, DataError

_MARK = re.compile(r"ckpt-(\d+)\.json")
_PART = re.compile(r"ckpt-(\d+)\.(json|index|data-\d+-of-\d+)")


class Checkpoints:
    """The checkpoint folder of one run, local or in a bucket."""

    def __init__(
        self, directory: str, variables: Sequence[tf.Variable], keep: int, is_chief: bool = True
    ):
        """`variables` are saved and restored in this order; only the chief writes."""
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(variables=list(variables))
        self._keep = keep
        self._is_chief = is_chief

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Commits the variables and `state` (JSON-able) as they are after `step` steps, then drops the oldest.

        Those of later steps go too: one of them couldn't be read, and the run went on from before it.

        Raises:
          OSError: it can't be written; the earlier ones are intact.
        """
        if not self._is_chief:
            return
        prefix = self._prefix(step)
        with storage.explain_write_error(f"the checkpoint {prefix}"):
            self._write_variables(prefix)
        storage.write_text(prefix + ".json", json.dumps(state))
        names = self._names()
        steps = _steps(names)
        kept = [earlier for earlier in steps if earlier <= step][-self._keep :]
        for dropped in set(steps) - set(kept):
            self._remove(dropped, names)

    def _write_variables(self, prefix: str) -> None:
        storage.make_folder(self._directory)
        if not storage.is_remote(prefix):
            self._checkpoint.write(prefix)
            return
        # Into a bucket directly, TensorFlow writes, lists, copies and deletes temporary objects: dozens of requests.
        with tempfile.TemporaryDirectory() as folder:
            self._checkpoint.write(f"{folder}/{pathlib.PurePosixPath(prefix).name}")
            for path in pathlib.Path(folder).iterdir():
                storage.copy(path, f"{self._directory}/{path.name}")

    def restore(self) -> Mapping[str, Any] | None:
        """Restores the newest checkpoint that can be read and returns its state; None where there is none.

        Raises:
          DataError: there are some, and none can be read.
        """
        for step in reversed(_steps(self._names())):
            prefix = self._prefix(step)
            try:
                state = json.loads(storage.read_bytes(prefix + ".json") or "")
                self._checkpoint.read(prefix).assert_existing_objects_matched()
            except (
                tf.errors.OpError,
                OSError,
                ValueError,
                AssertionError,
                IndexError,  # The file was cut short.
            ) as error:
                if isinstance(storage.translate_error(error), storage.StorageOutageError):
                    raise
                logging.error(
                    "The checkpoint %s can't be read (%s); trying the one before it.",
                    prefix,
                    str(error).splitlines()[0],
                )
                continue
            return state
        if _steps(self._names()):  # the variables may hold half of one: not a state to start from
            raise DataError(
                f"no checkpoint in {self._directory} can be read; remove that folder to start anew"
            )
        return None

    def newest_state(self) -> Mapping[str, Any] | None:
        """State of the newest readable commit mark, without touching a variable."""
        for step in reversed(_steps(self._names())):
            try:
                return json.loads(storage.read_bytes(self._prefix(step) + ".json") or "")
            except (OSError, ValueError):
                continue
        return None

    def _prefix(self, step: int) -> str:
        return f"{self._directory}/ckpt-{step:08d}"

    def _names(self) -> list[str]:
        return storage.list_folder(self._directory)

    def _remove(self, step: int, names: Sequence[str]) -> None:
        """Takes the commit mark away first, so that half a checkpoint is never taken for one."""
        mark = f"{pathlib.PurePosixPath(self._prefix(step)).name}.json"
        parts = [
            name for name in names if name.startswith(mark.removesuffix("json")) and name != mark
        ]
        for name in [mark, *parts]:
            storage.remove_file(f"{self._directory}/{name}")


def _steps(names: Sequence[str]) -> list[int]:
    """Steps whose commit mark is among these names."""
    return sorted(int(mark[1]) for name in names if (mark := _MARK.fullmatch(name)))


def sweep(folder: str) -> None:
    """Removes what killed writers left there: files under their temporary names, and parts of checkpoints without a commit mark."""
    names = storage.list_folder(folder)
    committed = set(_steps(names))
    for name in names:
        part = _PART.fullmatch(name)
        if storage.PARTIAL in name or (
            name.startswith("ckpt-") and not (part and int(part[1]) in committed)
        ):
            storage.remove(f"{folder}/{name.rstrip('/')}")


def check_same_run(path: str, settings: Mapping[str, Any]) -> None:
    """Refuses to continue a run under other settings than those that its first call wrote to `path`.

    Raises:
      ConfigError: names the keys that differ.
    """
    settings = json.loads(json.dumps(settings))
    if (contents := storage.read_bytes(path)) is None:
        return
    earlier = json.loads(contents)
    differing = sorted(
        key for key in {*earlier, *settings} if earlier.get(key) != settings.get(key)
    )
    if differing:
        changes = "; ".join(
            f"{key} was {earlier.get(key)!r} and is {settings.get(key)!r}" for key in differing
        )
        raise ConfigError(
            f"{os.path.dirname(path)} holds a run with other settings: {changes}; name another --workdir, or restore the settings"
        )
