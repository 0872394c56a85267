"""An artifact pushed by the Hub's own client scores after a pull, offline too.

The Hub is a stand-in on loopback, the client is the real one, in processes of its own: it reads its
address when it is imported.
"""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests.support import documents, hub_double, small_artifact
from trainer import artifact, hub
from trainer.errors import ConfigError

SCORE = "import sys; from batch_inference.main import score; sys.exit(score())"
FETCH = "import sys; from trainer import hub; hub.fetch(sys.argv[1])"
PUSH = """
import sys, huggingface_hub
api = huggingface_hub.HfApi(token="hf_none")
api.create_repo("user/arms", exist_ok=True)
api.upload_folder(repo_id="user/arms", folder_path=sys.argv[1])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "artifact"
    return folder, small_artifact.make(folder, small_artifact.network())


def run(code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        | environment,
        cwd=documents.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_pushed_pulled_scored_and_scored_offline(made, tmp_path):
    folder, described = made
    (tmp_path / "radiographs").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 44), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "radiographs" / "one.png"), noise)
    flags = [f"--input={tmp_path / 'radiographs'}", "--cam=none"]
    with hub_double.running() as double:
        environment = {"HF_ENDPOINT": double.address, "HF_HOME": str(tmp_path / "hf")}
        pushed = run(PUSH, environment, str(folder))
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        (digest, content), *_ = double.commits["user/arms"]
        assert set(described.files) | {artifact.MODEL_JSON} == set(content)
        double.commit("user/arms", {"model.json": b"{}"})  # what `main` has by now
        first = run(
            SCORE,
            environment,
            *flags,
            f"--model=hf://user/arms@{digest}",
            f"--output={tmp_path / 'first'}",
        )
        assert first.returncode == 0, first.stderr[-3000:]
        missing = run(SCORE, environment, *flags, "--model=hf://user/legs", "--output=x")
        assert missing.returncode == 2 and "hf://user/legs cannot be fetched (" in missing.stderr
    # Nobody answers any more, as in an outage.
    unknown = run(SCORE, environment, *flags, "--model=hf://user/legs", "--output=x")
    assert unknown.returncode == 1 and "cannot be fetched now (" in unknown.stderr
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    absent = run(SCORE, offline, *flags, "--model=hf://user/legs", "--output=x")
    assert absent.returncode == 2 and "hf://user/legs cannot be fetched (" in absent.stderr
    model = f"--model=hf://user/arms@{digest}"
    again = run(SCORE, offline, *flags, model, f"--output={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr[-3000:]
    rows = [
        [path.read_text() for path in sorted((tmp_path / name).glob("predictions.jsonl*"))]
        for name in ("first", "again")
    ]
    assert rows[0] == rows[1] and described.model_id in rows[0][0]


def test_a_connection_that_is_cut_may_be_tried_again(tmp_path):
    with hub_double.running() as double:
        double.commit("user/arms", {"model.json": b"{}"})
        double.cuts_connections = True
        environment = {"HF_ENDPOINT": double.address, "HF_HOME": str(tmp_path / "hf")}
        cut = run(FETCH, environment, "hf://user/arms")
    assert "StorageOutageError: hf://user/arms cannot be fetched now (" in cut.stderr


def test_the_card_has_the_metadata_that_the_hub_reads(made):
    folder, _ = made
    card = ModelCard.load(folder / artifact.HUB_CARD)
    assert card.data.library_name == "keras"
    assert card.data.pipeline_tag == "image-classification" and "radiography" in card.data.tags
    assert card.text.strip() == (folder / artifact.MODEL_CARD).read_text().strip()


@pytest.mark.parametrize("model", ["hf://arms", "hf://user/", "hf://user/arms/artifact", "hf://"])
def test_what_is_no_repository_is_refused(model):
    with pytest.raises(ConfigError, match=r"expected hf://user/name\[@revision\]"):
        hub.fetch(model)


@pytest.mark.parametrize("model", ["runs/first/artifact", "gs://bucket/artifact"])
def test_other_addresses_stay_as_they_are(model):
    assert hub.fetch(model) == model
