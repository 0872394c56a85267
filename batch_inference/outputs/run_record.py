"""Record what made the results of a folder, and whether they are complete: `run.json`."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from batch_inference.options import Options
from batch_inference.storage import filesystem, storage_errors
from trainer.errors import ConfigError

RUN_JSON = "run.json"
_NOT_IN_ROWS = (
    {"model", "engine", "precision"}  # The record holds their outcome, as model and engine.
    | {"exclude", "recursive", "output", "resume", "overwrite"}
    | {"batch_size", "format", "bigquery", "max_rejection_rate", "beam"}
)
"""Options on which no row or picture depends: a resumed run may have others."""
_COMPARED = ("model", "engine", "threshold", "uncertain_band", "cam_scale")
"""Fields of the record that a resumed run has too."""
_DEFAULTS = {
    field.name: json.loads(json.dumps(field.default))
    for field in dataclasses.fields(Options)
    if field.default is not dataclasses.MISSING
}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Records what the results of a run were made with.

    Attributes:
      model: id of the artifact.
      engine: as in the rows.
      options: values by name.
      threshold, uncertain_band, cam_scale: of the artifact, with which labels were called and maps
        drawn. The model's id does not cover them.
      started: when, ISO 8601 in UTC.
    """

    model: str
    engine: str
    options: Mapping[str, Any]
    threshold: float
    uncertain_band: tuple[float, float] | None
    cam_scale: float
    started: str = dataclasses.field(default_factory=_now)

    def write(self, output: str, finished: bool) -> None:
        """Write `run.json`: as the first of all files, and again as the last."""
        state = {"state": "finished", "finished": _now()} if finished else {"state": "running"}
        write_json(filesystem.join(output, RUN_JSON), state | dataclasses.asdict(self))

    def find_difference(self, earlier: Mapping[str, Any]) -> str | None:
        """Say what differs from an earlier record, as `read` returns it, so that no run with this
        one may resume it.
        """
        ours = json.loads(json.dumps(dataclasses.asdict(self)))
        for name in _COMPARED:
            # An earlier version wrote model and engine only.
            if name in earlier and ours[name] != earlier[name]:
                return f"{name} {earlier[name]}, and this run has {name} {ours[name]}"
        for name in sorted({*ours["options"], *earlier["options"]} - _NOT_IN_ROWS):
            # An earlier version lacks later options, and did what is their default.
            there, here = (
                found["options"].get(name, _DEFAULTS.get(name)) for found in (earlier, ours)
            )
            if here != there:
                there, here = (
                    f"no --{name}" if value is None else f"--{name}={value}"
                    for value in (there, here)
                )
                return f"{there}, and this run has {here}"
        return None


def read(folder: str, mistake: type[ValueError], name: str) -> dict[str, Any] | None:
    """Return the content of `run.json`; None where there is none, or it is damaged.

    Args:
      folder: of the run.
      mistake: what is raised if the file cannot be read.
      name: what the message calls the folder.

    Raises:
      StorageOutageError: the storage does not answer.
    """
    uri, what = filesystem.join(folder, RUN_JSON), f"{name}: its {RUN_JSON} cannot be read"
    with storage_errors.explain_failure(mistake, what, "check access"):
        try:
            content = json.loads(filesystem.read(uri))
            is_whole = {"model", "engine"} <= content.keys() and isinstance(
                content["options"], dict
            )
            return content if is_whole else None
        except storage_errors.StorageError as error:
            if error.temporary or filesystem.exists(uri):
                raise
            return None
        except (ValueError, KeyError, AttributeError):
            return None


def check_resumable(
    output: str, earlier: Mapping[str, Any], record: RunRecord, resume: bool
) -> None:
    """Raise `ConfigError` where the earlier run may not be resumed with this record."""
    if not resume:
        is_finished = earlier.get("state") == "finished"
        holds = "results already" if is_finished else "a run that was not finished"
        purpose = "score only what is new" if is_finished else "continue it"
        raise ConfigError(
            f"{output} holds {holds}; add --resume to {purpose}, or --overwrite to start again, "
            "or choose another --output"
        )
    if difference := record.find_difference(earlier):
        raise ConfigError(
            f"{output} holds results made with {difference}; --resume needs the same: "
            "choose another --output, or add --overwrite"
        )


def write_json(uri: str, content: Any) -> None:
    """Write a JSON document, indented."""
    filesystem.write(
        uri, (json.dumps(content, indent=2) + "\n").encode("utf-8"), "application/json"
    )
