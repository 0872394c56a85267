"""Name the files of gallery pages, and find and delete those that a scored folder holds."""

import re
from collections.abc import Collection

from batch_inference.storage import filesystem, storage_errors

PAGE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.html")
"""Names that a page may have."""
COUNT = '<meta name="humerus-rows" content="{}">'
"""The tag in a page's head with its number of rows; other HTML files lack it."""
_ROWS = re.compile(r"(images|studies|rejected)-\d{5}\.js")


def rows_path(page: str, kind: str, number: int) -> str:
    """Return the path of a file of rows (`images`, `studies` or `rejected`), beside its page."""
    return f"{_rows_folder(page)}/{kind}-{number:05d}.js"


def count_rows(uri: str) -> int | None:
    """Return the number of rows that a page shows; None where humerus-gallery did not write it."""
    found = re.search(COUNT.format("([0-9]+)").encode(), filesystem.read(uri))
    return int(found[1]) if found else None


def find_pages(scored: str) -> list[str]:
    """Return the names of the pages that humerus-gallery wrote into a scored folder.

    Raises:
      StorageError: the folder cannot be listed, or the storage does not answer.
    """
    return [
        name
        for name in filesystem.names(scored)
        if PAGE.fullmatch(name) and _is_page(filesystem.join(scored, name))
    ]


def delete_page(scored: str, page: str) -> None:
    """Delete a page and the files of its rows.

    The page comes last: after a kill, it is still found.
    """
    delete_rows(scored, page)
    folder = filesystem.join(scored, _rows_folder(page))
    if not filesystem.names(folder):
        filesystem.delete(folder)
    filesystem.delete(filesystem.join(scored, page))


def delete_rows(scored: str, page: str, kept: Collection[str] = ()) -> None:
    """Delete the files of a page's rows but for the paths in `kept`, and nobody else's files."""
    folder = _rows_folder(page)
    for name in filesystem.names(filesystem.join(scored, folder)):
        path = f"{folder}/{name}"
        if _ROWS.fullmatch(name) and path not in kept:
            filesystem.delete(filesystem.join(scored, path))


def belongs_to_page(folder: str, name: str) -> bool:
    """Return whether a name in a folder is that of a page, or of the folder of a page's rows."""
    page = f"{name.removesuffix('_rows')}.html" if name.endswith("_rows") else name
    try:
        return bool(PAGE.fullmatch(page)) and count_rows(filesystem.join(folder, page)) is not None
    except storage_errors.StorageError:
        return False


def _rows_folder(page: str) -> str:
    return f"{page.removesuffix('.html')}_rows"


def _is_page(uri: str) -> bool:
    try:
        return count_rows(uri) is not None
    except storage_errors.StorageError as error:
        if error.temporary:
            raise
        return False  # a folder, or a file that is larger than any page or may not be read
