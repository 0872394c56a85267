"""What the tests on real runners share. `make test-distributed` fetches the runners and names their folder; without it nothing is collected."""

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
    """Folder with `bin/prism`, `bin/container` (what starts a worker) and the jars of Flink's job server in `flink`."""
    return pathlib.Path(str(RUNNERS)).resolve()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Also for the workers, which inherit it."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("model") / "artifact"
    tiny_artifact.make(folder, engines=VERIFIED)
    return folder


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> pathlib.Path:
    """`IMAGES` pictures in MURA's folders, and a file that is none."""
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
