"""Find the files of a folder that may be images: one rule for preparation and scoring.

Every file counts, whatever its name, because only its content tells whether it is an image.
"""

import os
from collections.abc import Callable, Iterator


def is_hidden(path: str) -> bool:
    """Return whether a part of a relative path is hidden (`.name`) or made by macOS archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def walk_files(
    top: str, recursive: bool = True, on_error: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    """Yield the paths of all files below a local folder that are not hidden, one by one.

    Links to folders are followed, but neither back to a folder that contains the link (even above
    `top`) nor to a folder that another link has led to. Such a link is yielded itself. So are
    dangling links, pipes and devices, and a folder that cannot be listed: whoever opens them finds
    what is wrong.

    Args:
      top: path of the folder.
      recursive: False yields only the files of the folder itself.
      on_error: called with the error of a folder that cannot be listed; it may raise another.
    """
    folder = top
    ancestors: tuple[str, ...] = (os.path.realpath(top),)
    linked: set[str] = set()
    # Only the names of what is to be listed below each folder on the way down: the paths of a
    # million folders would fill the memory.
    pending: list[tuple[str, tuple[str, ...], list[str]]] = []
    while True:
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    target = os.path.realpath(entry.path) if entry.is_symlink() else ""
                    leads_back = target and (target in linked or _contains_any(target, ancestors))
                    if leads_back or not _is_folder(entry):
                        yield entry.path
                    elif recursive:
                        below.append(entry.name)
                        if target:
                            linked.add(target)
        except OSError as error:
            if on_error:
                on_error(error)
            yield folder
        pending.append((folder, ancestors, below))
        while not pending[-1][-1]:
            pending.pop()
            if not pending:
                return
        parent, of_parent, names = pending[-1]
        name = names.pop()
        folder = os.path.join(parent, name)
        # pathlib would keep every name that it has seen.
        is_link = os.path.islink(folder)  # noqa: PTH114
        ancestors = (
            *of_parent,
            os.path.realpath(folder) if is_link else os.path.join(of_parent[-1], name),
        )


def _contains_any(folder: str, others: tuple[str, ...]) -> bool:
    """Return whether one of the real paths is that of the folder or lies in it."""
    inside = os.path.join(folder, "")
    return any(os.path.join(other, "").startswith(inside) for other in others)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
