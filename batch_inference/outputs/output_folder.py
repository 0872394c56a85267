"""Claims the folder of a run: nothing in it is replaced unless the command line says so.

`run.json` says what made the results and whether they are complete. A run deletes only files with
the exact names of results and the pages of humerus-gallery, and only beside a `run.json`: anything
else belongs to somebody.
"""

import dataclasses
import datetime
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from batch_inference.options import Options
from batch_inference.outputs import journal, page_files, picture_paths, row_files
from batch_inference.storage import filesystem, storage_errors
from trainer.errors import ConfigError, DataError

RUN_JSON = "run.json"
SUMMARY_JSON = "summary.json"
GALLERY_HTML = "gallery.html"
GALLERY = "gallery_rows"
_COMPLETED_LAST = {SUMMARY_JSON, GALLERY_HTML, GALLERY}
_KEPT_TO_RESUME = {
    RUN_JSON,
    picture_paths.CAMS,
    picture_paths.ORIGINALS,
    picture_paths.DICOM,
    journal.JOURNAL,
}
_TEMPORARY = "beam-temp-"

_NOT_IN_ROWS = {
    # The record holds their outcome, as model and engine.
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
"""Options on which no row or picture depends: a resumed run may have others."""
_COMPARED = ("model", "engine", "threshold", "uncertain_band", "cam_scale")
"""Fields of the record that a resumed run has too."""
_DEFAULTS = {
    field.name: json.loads(json.dumps(field.default))
    for field in dataclasses.fields(Options)
    if field.default is not dataclasses.MISSING
}


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
    started: str = dataclasses.field(default_factory=lambda: _now())

    def write(self, output: str, finished: bool) -> None:
        """Write `run.json`: as the first of all files, and again as the last."""
        state = {"state": "finished", "finished": _now()} if finished else {"state": "running"}
        write_json(filesystem.join(output, RUN_JSON), state | dataclasses.asdict(self))


def match_results(output: str) -> Callable[[str], bool]:
    """Return a function that says whether a URI is, or lies in, a result of a run in `output`.

    It follows links.
    """
    inside = filesystem.join(filesystem.resolve_links(output), "")

    # Files come folder by folder, and following the links of a path takes a call for each part.
    resolve_folder = functools.lru_cache(maxsize=64)(filesystem.resolve_links)

    def is_result(uri: str) -> bool:
        folder, _, name = uri.rpartition("/")
        if name in ("", ".", "..") or filesystem.is_remote(uri) or pathlib.Path(uri).is_symlink():
            place = filesystem.resolve_links(uri)
        else:
            place = filesystem.join(resolve_folder(folder or "/"), name)
        return place.startswith(inside) and _is_result(place[len(inside) :].partition("/")[0])

    return is_result


def match_results_below(root: str) -> Callable[[str], bool]:
    """Return a function that says whether a local path lies in the results of any run in a folder
    below `root`.
    """

    @functools.lru_cache(maxsize=4096)
    def holds_run(folder: str) -> bool:
        try:
            return read_record(folder, DataError, folder) is not None
        except (storage_errors.StorageError, DataError, RecursionError):
            return False  # it is somebody else's

    def is_result(path: str) -> bool:
        names = path.removeprefix(root.rstrip("/") + "/").split("/")
        places = (("/".join([root, *names[:at]]), names[at]) for at in range(1, len(names)))
        return any(
            (_is_result(name) or page_files.is_of_page(folder, name)) and holds_run(folder)
            for folder, name in places
        )

    return is_result


def check(output: str, record: RunRecord, resume: bool, overwrite: bool) -> list[str]:
    """Return the names of an earlier run's results, after checking that `claim` may have them.

    The arguments and errors are those of `claim`.
    """
    if resume and overwrite:
        raise ConfigError(
            "--resume keeps what was scored and --overwrite deletes it; choose one of them"
        )
    with storage_errors.explain_failure(
        ConfigError, f"--output={output} cannot be listed", "check the address and access"
    ):
        taken = [name for name in filesystem.names(output) if _is_result(name)]
    earlier = read_record(output, ConfigError, f"--output={output}") if taken else None
    if taken and earlier is None:
        raise ConfigError(
            f"{output} holds {taken[0]}, but no {RUN_JSON} that says what run made it; "
            "choose another --output, or move that file away"
        )
    if earlier and not overwrite:
        _check_earlier(output, earlier, record, resume)
    return taken


def claim(output: str, record: RunRecord, resume: bool, overwrite: bool) -> None:
    """Write this run's `run.json`, and delete the earlier results that this run writes again.

    Pages of humerus-gallery are deleted too: they would show earlier rows beside new pictures.

    Args:
      output: absolute URI of the folder.
      record: what this run is made with.
      resume: continue an earlier run of the same model and options, complete or not.
      overwrite: delete all results of an earlier run.

    Raises:
      ConfigError: there are results, and neither `resume` nor `overwrite` is set, or they were
        made with something else, or no run made them.
      OutageError: there is no room, or the storage does not answer.
    """
    taken = check(output, record, resume, overwrite)
    with storage_errors.explain_failure(
        ConfigError,
        f"--output={output} cannot be written",
        "choose another folder, or check access",
    ):
        if taken and overwrite:
            # Deleted first, so that no later run resumes from what a kill leaves of the rest.
            filesystem.delete(filesystem.join(output, journal.JOURNAL))
        record.write(output, finished=False)
        # Also where nothing else is there: a kill may have come before `run.json` was in place.
        filesystem.remove_partial_files(output)
        if taken:
            for page in page_files.find_pages(output):
                page_files.delete_page(output, page)
            replaced = (
                {*taken, picture_paths.CAMS, picture_paths.ORIGINALS} - {RUN_JSON}
                if overwrite
                else set(taken) - _KEPT_TO_RESUME
            )
            for name in sorted(replaced):
                filesystem.delete(filesystem.join(output, name))


def read_record(folder: str, mistake: type[ValueError], name: str) -> dict[str, Any] | None:
    """Return the content of `run.json`; None where there is none, or it is damaged.

    Args:
      folder: of the run.
      mistake: what is raised if the file cannot be read.
      name: what the message calls the folder.

    Raises:
      OutageError: the storage does not answer.
    """
    what = f"{name}: its {RUN_JSON} cannot be read"
    with storage_errors.explain_failure(mistake, what, "check access"):
        try:
            content = json.loads(filesystem.read(filesystem.join(folder, RUN_JSON)))
            return (
                content
                if {"model", "engine"} <= content.keys() and isinstance(content["options"], dict)
                else None
            )
        except storage_errors.StorageError as error:
            if error.temporary or filesystem.exists(filesystem.join(folder, RUN_JSON)):
                raise
            return None
        except (ValueError, KeyError, AttributeError):
            return None


def write_json(uri: str, content: Any) -> None:
    """Write a JSON document, indented."""
    filesystem.write(
        uri, (json.dumps(content, indent=2) + "\n").encode("utf-8"), "application/json"
    )


def _check_earlier(
    output: str, earlier: Mapping[str, Any], record: RunRecord, resume: bool
) -> None:
    """Raise `ConfigError` where the earlier run may not be resumed with this record."""
    finished = earlier.get("state") == "finished"
    if not resume:
        holds = "results already" if finished else "a run that was not finished"
        purpose = "score only what is new" if finished else "continue it"
        raise ConfigError(
            f"{output} holds {holds}; add --resume to {purpose}, or --overwrite to start again, "
            "or choose another --output"
        )
    ours = json.loads(json.dumps(dataclasses.asdict(record)))
    for name in _COMPARED:
        # An earlier version wrote model and engine only.
        if name in earlier and ours[name] != earlier[name]:
            raise _refuse(
                output, f"{name} {earlier.get(name)}, and this run has {name} {ours[name]}"
            )
    for name in sorted({*ours["options"], *earlier["options"]} - _NOT_IN_ROWS):
        # An earlier version lacks later options, and did what is their default.
        here, there = (found["options"].get(name, _DEFAULTS.get(name)) for found in (ours, earlier))
        if here != there:
            there, here = (
                f"no --{name}" if value is None else f"--{name}={value}" for value in (there, here)
            )
            raise _refuse(output, f"{there}, and this run has {here}")


def _refuse(output: str, difference: str) -> ConfigError:
    return ConfigError(
        f"{output} holds results made with {difference}; --resume needs the same: "
        "choose another --output, or add --overwrite"
    )


def _is_result(name: str) -> bool:
    """Return whether a run writes a file or folder of this name."""
    return (
        name in _COMPLETED_LAST | _KEPT_TO_RESUME
        or name.startswith(_TEMPORARY)
        or row_files.parse_name(name) is not None
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
