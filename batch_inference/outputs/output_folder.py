"""List what a run writes into its folder, claim the folder, and delete what the run replaces.

A run deletes only files with the exact names of results and the pages of humerus-gallery, and only
beside a `run.json`: anything else belongs to somebody. `earlier_files` cleans up within the folders
that a resumed run keeps.
"""

import functools
import pathlib
import re
from collections.abc import Callable

from batch_inference.outputs import journal, page_files, picture_paths, row_files, run_record
from batch_inference.outputs.run_record import RUN_JSON, RunRecord
from batch_inference.storage import filesystem, storage_errors
from trainer.errors import ConfigError, DataError, StorageOutageError

SUMMARY_JSON = "summary.json"
GALLERY_HTML = "gallery.html"
GALLERY = "gallery_rows"

_RESULTS: dict[str, tuple[str, ...]] = {
    # Name, as a pattern: the flags with which the next run keeps it, and what makes it.
    re.escape(RUN_JSON): ("resume", "overwrite"),  # RunRecord, which writes it anew
    journal.JOURNAL: ("resume",),  # WriteJournal
    picture_paths.CAMS: ("resume",),  # Finish, WritePacks, humerus-overlay
    picture_paths.ORIGINALS: ("resume",),  # Finish
    picture_paths.DICOM: ("resume",),  # Finish
    row_files.NAME.pattern: (),  # WriteRows, move_into_place
    re.escape(SUMMARY_JSON): (),  # WriteSummary
    re.escape(GALLERY_HTML): (),  # page.write
    GALLERY: (),  # page.write
    "beam-temp-.*": (),  # WriteRows and Stage, until the run ends
}
"""The files and folders that a run writes directly into its output."""


def _find_kept(name: str) -> tuple[str, ...] | None:
    """Return the flags with which a run keeps an earlier result; None for other names."""
    return next(
        (kept for result, kept in _RESULTS.items() if re.fullmatch(result, name, re.DOTALL)), None
    )


def _is_result(name: str) -> bool:
    """Return whether a run writes a file or folder of this name."""
    return _find_kept(name) is not None


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
            return run_record.read(folder, DataError, folder) is not None
        except (storage_errors.StorageError, StorageOutageError, DataError, RecursionError):
            return False  # it is somebody else's

    def is_result(path: str) -> bool:
        names = path.removeprefix(root.rstrip("/") + "/").split("/")
        places = (("/".join([root, *names[:at]]), names[at]) for at in range(1, len(names)))
        return any(
            (_is_result(name) or page_files.belongs_to_page(folder, name)) and holds_run(folder)
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
    earlier = run_record.read(output, ConfigError, f"--output={output}") if taken else None
    if taken and earlier is None:
        raise ConfigError(
            f"{output} holds {taken[0]}, but no {RUN_JSON} that says what run made it; "
            "choose another --output, or move that file away"
        )
    if earlier and not overwrite:
        run_record.check_resumable(output, earlier, record, resume)
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
      StorageOutageError: there is no room, or the storage does not answer.
    """
    taken = check(output, record, resume, overwrite)
    flag = "overwrite" if overwrite else "resume"
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
        for page in page_files.find_pages(output) if taken else ():
            page_files.delete_page(output, page)
        for name in taken:
            if flag not in (_find_kept(name) or ()):
                filesystem.delete(filesystem.join(output, name))
