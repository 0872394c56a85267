"""The Dockerfile, where it can be checked without an image registry."""

import re

import pytest

from tests.support import runner_servers
from tests.support.documents import ROOT

STAGES = {
    found["name"]: found[0]
    for found in re.finditer(
        r"^FROM \S+ AS (?P<name>\S+)\n(?:(?!FROM ).*\n)*",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
}
INSTALLS = re.findall(
    r"(?:uv )?pip (?:install|wheel) [^&\n]*|uv build [^&\n]*", "".join(STAGES.values())
)


def test_every_install_is_checked_against_the_hashes_of_the_lock():
    assert len(INSTALLS) == 6
    lock = "/src/requirements.lock"
    assert f"UV_CONSTRAINT={lock} UV_BUILD_CONSTRAINT={lock}\n" in STAGES["builder"]
    assert "WORKDIR /src\nCOPY setup.py pyproject.toml requirements.lock" in STAGES["builder"]
    for line in INSTALLS:
        assert line.startswith("uv ") or "--require-hashes" in line or "--no-index" in line, line


@pytest.mark.parametrize("target", ["train", "score"])
def test_an_edit_of_ours_leaves_the_layers_of_all_other_packages(target):
    assert "COPY trainer" not in STAGES["builder"] + STAGES[f"{target}-packages"]
    assert f"COPY --from={target}-packages /opt/humerus" in STAGES[target]
    *_, last = re.findall(r"^(?:COPY|RUN) .*$", STAGES[target], re.MULTILINE)
    assert last.startswith("RUN --mount=from=packages,") and "--no-deps --no-index" in last


def test_the_scoring_image_is_a_container_of_beams():
    """As that of the workers in tests/distributed, which get their environment from here."""
    assert runner_servers.image_environment("score") == {
        "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"
    }
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in STAGES["score"]
    version = re.search(
        r"^apache-beam.*==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )[1]
    assert f"_sdk:{version}\n" in (ROOT / "Dockerfile").read_text()


def test_nobody_is_root():
    assert all("USER 65532:65532" in STAGES[target] for target in ("train", "score"))
