"""The folder of a run: `run.json` says what made it and whether it is finished; nothing in it is replaced unless asked for.

What a run makes there it knows by its whole name, and deletes it only beside such a `run.json`: anything else is somebody's.
"""

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

from batch_inference.outputs import journal, picture_paths, row_files
from batch_inference.storage import filesystem
from trainer.errors import ConfigError

RUN_JSON = "run.json"
SUMMARY_JSON = "summary.json"
GALLERY_HTML = "gallery.html"
GALLERY = "gallery_rows"
_COMPLETED_LAST = {SUMMARY_JSON, GALLERY_HTML, GALLERY}
_KEPT_TO_RESUME = {RUN_JSON, picture_paths.CAMS, journal.JOURNAL}
_TEMPORARY = "beam-temp-"

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
        write_json(filesystem.join(output, RUN_JSON), state | dataclasses.asdict(self))


def match_results(output: str) -> Callable[[str], bool]:
    """Tells of a URI whether what it names is a result of a run in this folder, or lies in one, also by way of links."""
    inside = filesystem.join(filesystem.real(output), "")

    def is_result(uri: str) -> bool:
        place = filesystem.real(uri)
        return place.startswith(inside) and _is_result(place[len(inside) :].partition("/")[0])

    return is_result


def check(output: str, record: RunRecord, resume: bool, overwrite: bool) -> list[str]:
    """Names of what an earlier run left in the folder, once it is sure that `claim` may have it; takes what `claim` takes.

    Raises:
      ConfigError, OutageError: as `claim`.
    """
    if resume and overwrite:
        raise ConfigError(
            "--resume keeps what was scored and --overwrite deletes it; choose one of them"
        )
    with filesystem.refusing(
        ConfigError, f"--output={output} cannot be listed", "check the address and access"
    ):
        taken = [name for name in filesystem.names(output) if _is_result(name)]
        earlier = _earlier(output) if taken else None
    if taken and earlier is None:
        raise ConfigError(
            f"{output} holds {taken[0]}, but no {RUN_JSON} that says what run made it; choose another --output, or move that away"
        )
    if earlier and not overwrite:
        _check_earlier(output, earlier, record, resume)
    return taken


def claim(output: str, record: RunRecord, resume: bool, overwrite: bool) -> None:
    """Makes the folder this run's: writes `run.json`, and deletes of an earlier run what this one writes anew.

    Args:
      output: absolute URI.
      resume: go on from an earlier run of the same model and options, whether it was finished or not.
      overwrite: delete all of an earlier run.

    Raises:
      ConfigError: results are there already, and neither was asked for, or they are not this model's, or no run made them.
      OutageError: there is no room, or the storage does not answer.
    """
    taken = check(output, record, resume, overwrite)
    with filesystem.refusing(
        ConfigError,
        f"--output={output} cannot be written",
        "choose another folder, or check access",
    ):
        if taken and overwrite:
            # First of all: what a kill leaves of the rest is then nothing that a run would go on from.
            filesystem.delete(filesystem.join(output, journal.JOURNAL))
        record.write(output, finished=False)
        if taken:
            filesystem.sweep(output)
            replaced = (
                {*taken, picture_paths.CAMS} - {RUN_JSON}
                if overwrite
                else set(taken) - _KEPT_TO_RESUME
            )
            for name in sorted(replaced):
                filesystem.delete(filesystem.join(output, name))


def write_json(uri: str, content: Any) -> None:
    """Writes a JSON document for people and programs."""
    filesystem.write(
        uri, (json.dumps(content, indent=2) + "\n").encode("utf-8"), "application/json"
    )


def _check_earlier(
    output: str, earlier: Mapping[str, Any], record: RunRecord, resume: bool
) -> None:
    finished = earlier.get("state") == "finished"
    if not resume:
        raise ConfigError(
            f"{output} holds {'results already' if finished else 'a run that was not finished'}; add --resume to "
            f"{'score what is new only' if finished else 'go on from there'}, or --overwrite to start again, "
            "or choose another --output"
        )
    ours = json.loads(json.dumps(dataclasses.asdict(record)))
    for name in ("model", "engine"):
        if ours[name] != earlier.get(name):
            raise _another(
                output, f"{name} {earlier.get(name)}, and this run has {name} {ours[name]}"
            )
    for name in sorted({*ours["options"], *earlier["options"]} - _NOT_IN_ROWS):
        here, there = ours["options"].get(name), earlier["options"].get(name)
        if here != there:
            there, here = (
                f"no --{name}" if value is None else f"--{name}={value}" for value in (there, here)
            )
            raise _another(output, f"{there}, and this run has {here}")


def _earlier(output: str) -> dict[str, Any] | None:
    """The record of the run that made what is there; None where there is none that is whole."""
    try:
        content = json.loads(filesystem.read(filesystem.join(output, RUN_JSON)))
        return (
            content
            if {"model", "engine"} <= content.keys() and isinstance(content["options"], dict)
            else None
        )
    except filesystem.StorageError as error:
        if error.passing:
            raise
        return None
    except (ValueError, KeyError, AttributeError):
        return None


def _another(output: str, difference: str) -> ConfigError:
    return ConfigError(
        f"{output} holds results made with {difference}; --resume needs the same: choose another --output, or add --overwrite"
    )


def _is_result(name: str) -> bool:
    """Whether something of this name in the folder is what a run makes there."""
    return (
        name in _COMPLETED_LAST | _KEPT_TO_RESUME
        or name.startswith(_TEMPORARY)
        or row_files.parse_name(name) is not None
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
