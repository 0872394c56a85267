"""The folder of a run: `run.json` says what made it and whether it is finished; nothing in it is replaced unless asked for."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from batch_inference import journal, names, schema, storage
from trainer.errors import ConfigError

RUN_JSON = "run.json"
SUMMARY_JSON = "summary.json"
GALLERY_HTML = "gallery.html"
GALLERY = "gallery_rows"
_COMPLETED_LAST = (
    *(f"{name}{mark}" for name in schema.TABLES for mark in ".-"),
    *("beam-temp-", SUMMARY_JSON, GALLERY_HTML, GALLERY),
)
_RESULTS = (*_COMPLETED_LAST, RUN_JSON, names.CAMS, journal.JOURNAL)

_NOT_IN_ROWS = {
    # What these come to is recorded beside the options, as model and engine.
    *("model", "engine", "precision"),
    *(
        "exclude",
        "recursive",
        "output",
        "resume",
        "overwrite",
        "batch_size",
        "format",
        "bigquery",
        "max_rejection_rate",
        "beam",
    ),
}
"""Options on which no row and no picture depends: a run may go on from one that had others."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run is made with: id of the model, engine and precision, and the options by name."""

    model: str
    engine: str
    options: Mapping[str, Any]
    started: str = dataclasses.field(default_factory=lambda: _now())

    def write(self, output: str, finished: bool) -> None:
        """Writes `run.json`: first of all files, and once more as the last."""
        state = {"state": "finished", "finished": _now()} if finished else {"state": "running"}
        write_json(storage.join(output, RUN_JSON), state | dataclasses.asdict(self))


def check(output: str, record: RunRecord, resume: bool, overwrite: bool) -> list[str]:
    """Names of what an earlier run left in the folder, once it is sure that `claim` may have it; takes what `claim` takes.

    Raises:
      ConfigError: as `claim`.
    """
    if resume and overwrite:
        raise ConfigError("--resume keeps what was scored and --overwrite deletes it; choose one of them")
    taken = _results_in(output)
    if taken and not overwrite:
        _check_earlier(output, record, resume)
    return taken


def claim(output: str, record: RunRecord, resume: bool, overwrite: bool) -> None:
    """Makes the folder this run's: writes `run.json`, and deletes of an earlier run what this one writes anew.

    Args:
      output: absolute URI.
      resume: go on from an earlier run of the same model and options, whether it was finished or not.
      overwrite: delete all of an earlier run.

    Raises:
      ConfigError: results are there already, and neither was asked for, or they are not this model's.
    """
    taken = check(output, record, resume, overwrite)
    if taken and overwrite:
        # `run.json` goes first: what a kill leaves of the rest must not look like something to go on from.
        for name in sorted({*taken, names.CAMS, journal.JOURNAL}, key=lambda name: name != RUN_JSON):
            storage.delete(storage.join(output, name))
    record.write(output, finished=False)
    if resume:
        storage.sweep(output)
    for name in taken:
        if resume and name.startswith(_COMPLETED_LAST):
            storage.delete(storage.join(output, name))


def write_json(uri: str, content: Any) -> None:
    """Writes a JSON document for people and programs."""
    storage.write(uri, (json.dumps(content, indent=2) + "\n").encode("utf-8"), "application/json")


def _check_earlier(output: str, record: RunRecord, resume: bool) -> None:
    earlier = _earlier(output)
    finished = earlier.get("state") == "finished"
    if not resume:
        raise ConfigError(
            f"{output} holds {'results already' if finished else 'a run that was not finished'}; add --resume to "
            f"{'score what is new only' if finished else 'go on from there'}, or --overwrite to start again, "
            "or choose another --output"
        )
    if not earlier.get("model"):
        raise ConfigError(
            f"{output} holds results without a {RUN_JSON} that says what made them; choose another --output, or add --overwrite"
        )
    ours = json.loads(json.dumps(dataclasses.asdict(record)))
    for name in ("model", "engine"):
        if ours[name] != earlier.get(name):
            raise _another(output, f"{name} {earlier.get(name)}, and this run has {name} {ours[name]}")
    for name in sorted({*ours["options"], *earlier["options"]} - _NOT_IN_ROWS):
        here, there = ours["options"].get(name), earlier["options"].get(name)
        if here != there:
            there, here = (f"no --{name}" if value is None else f"--{name}={value}" for value in (there, here))
            raise _another(output, f"{there}, and this run has {here}")


def _earlier(output: str) -> dict[str, Any]:
    try:
        content = json.loads(storage.read(storage.join(output, RUN_JSON)))
        return content if isinstance(content["options"], dict) else {"options": {}}
    except (storage.StorageError, ValueError, KeyError, TypeError):
        # Results without a record, or with a damaged one: of no model that one could go on with.
        return {"options": {}}


def _another(output: str, difference: str) -> ConfigError:
    return ConfigError(
        f"{output} holds results made with {difference}; --resume needs the same: choose another --output, or add --overwrite"
    )


def _results_in(output: str) -> list[str]:
    try:
        return [name for name in storage.names(output) if name.startswith(_RESULTS)]
    except storage.StorageError as error:
        raise ConfigError(f"--output={output} cannot be listed ({error}); check the address and access") from error


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
