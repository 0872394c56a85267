"""Fixtures that every test file may use."""

import logging
import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.support import browser, bucket_server

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _log_again() -> Iterator[None]:
    """Switch the log on again: a signal switches it off, for a process that is about to end."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Return the folder of real radiographs and weights that tests may use."""
    folder = pathlib.Path(os.environ.get("HUMERUS_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "fracatlas_shoulder").is_dir():
        pytest.skip(f"the folder of real test radiographs is absent: {folder} (set HUMERUS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory) -> Iterator[browser.Page]:
    """Start one browser for all tests of pages."""
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(chromium) -> browser.Page:
    """Return the page of the shared browser, without what earlier tests left in it."""
    chromium.reset()
    return chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[bucket_server.BucketServer]:
    """Start a storage emulator for the tests of a module."""
    with bucket_server.running(tmp_path_factory.mktemp("keys")) as running:
        yield running
