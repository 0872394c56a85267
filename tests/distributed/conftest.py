"""This module provides the fixtures of the tests on real runners.

`make test-distributed` fetches the runners and sets HUMERUS_RUNNERS to their folder. Without that
variable nothing is collected.
"""

import os
import pathlib

import cv2
import pytest

from tests.batch_inference.conftest import VERIFIED, picture
from tests.support import runner_servers, tiny_artifact

RUNNERS = os.environ.get("HUMERUS_RUNNERS")
IMAGES = 240

if not RUNNERS:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def fetched() -> pathlib.Path:
    """Return the folder of the runners.

    It holds `bin/prism`, `bin/container` (the program that starts a worker) and, in `flink`, the
    jars of Flink's job server.
    """
    return pathlib.Path(str(RUNNERS)).resolve()


@pytest.fixture(scope="session", autouse=True)
def _set_cache(tmp_path_factory):
    """Set a cache folder for the tests; the workers inherit it."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("model") / "artifact"
    tiny_artifact.make(folder, engines=VERIFIED)
    return folder


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> pathlib.Path:
    """Return a folder with `IMAGES` pictures in MURA's layout and an empty file."""
    root = tmp_path_factory.mktemp("radiographs")
    for index in range(IMAGES):
        file = (
            root
            / f"patient{index // 8:05d}"
            / f"study{index // 4 % 2 + 1}_positive"
            / f"image{index}.png"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), picture(index, 40 + index % 17, 60 - index % 13))
    (root / "empty.png").write_bytes(b"")
    return root


@pytest.fixture(scope="session")
def pool(fetched, tmp_path_factory):
    with runner_servers.worker_pool(
        fetched / "bin" / "container", tmp_path_factory.mktemp("pool") / "scratch"
    ) as pool:
        yield pool


@pytest.fixture(scope="session")
def flink_scratch(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("flink") / "scratch"


@pytest.fixture(scope="session")
def flink(fetched, flink_scratch):
    with runner_servers.flink(fetched / "flink", flink_scratch) as address:
        yield address
