"""Score from Python: the numbers and pictures of `humerus-score`, files that are none, buckets."""

import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest

from batch_inference.main import score
from tests.support import bucket_server, tiny_artifact
from trainer.errors import ConfigError, DataError
from trainer.inference import engines
from trainer.predictor import Predictor

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("model") / "artifact"
    tiny_artifact.make(folder, uncertain_band=None)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Seven pictures of different sizes and kinds."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    paths = []
    for i, suffix in enumerate([".png", ".jpg", ".bmp", ".tif", ".webp", ".png", ".png"]):
        small = rng.integers(0, 256, (5, 4), dtype=np.uint8)
        pixels = cv2.resize(small, (40 + 7 * i, 90 - 5 * i), interpolation=cv2.INTER_CUBIC)
        paths.append(str(folder / f"image{i}{suffix}"))
        assert cv2.imwrite(paths[-1], pixels)
    return paths


@pytest.fixture(scope="module")
def predict(model) -> Predictor:
    return Predictor(model, engine="tensorflow", batch_size=3)


def test_numbers_and_pictures_are_those_of_the_scorer(predict, model, files, tmp_path):
    output = tmp_path / "out"
    flags = [f"--input={pathlib.Path(files[0]).parent}", f"--model={model}", f"--output={output}"]
    assert (
        score(
            [
                "humerus-score",
                *flags,
                "--engine=tensorflow",
                "--cam_format=png",
                "--cam=side_by_side",
                "--cam_legend",
            ]
        )
        == 0
    )
    rows = {}
    for part in output.glob("predictions.jsonl*"):
        for line in part.read_text().splitlines():
            row = json.loads(line)
            rows[row["uri"]] = row
    found = predict(files)
    assert [prediction.file for prediction in found] == files
    for prediction in found:
        row = rows[prediction.file]
        assert prediction.label == row["label"]
        for name in ("probability", "logit"):
            # The scorer's batches are larger: sums are rounded in another order.
            assert getattr(prediction, name) == pytest.approx(row[name], rel=1e-6)
        assert prediction.sha256 == row["sha256"]
        drawn = cv2.imread(str(output / row["cam"]))
        assert np.array_equal(prediction.draw("side_by_side", with_legend=True), drawn[:, :, ::-1])
        picture, height = prediction.draw("side_by_side"), len(prediction.radiograph)
        assert len(picture) == height < len(drawn)
        assert np.array_equal(picture, drawn[:height, : picture.shape[1], ::-1])
        assert prediction.draw().shape == (*prediction.radiograph.shape, 3)
        assert prediction.cam.shape == (4, 4)


def test_a_file_may_be_bytes_or_one_path(predict, files):
    (by_path,) = predict(files[0])
    (by_bytes,) = predict(pathlib.Path(files[0]).read_bytes())
    (by_path_object,) = predict([pathlib.Path(files[0])])
    assert by_bytes.file is None
    assert by_path.file == by_path_object.file == files[0]
    assert by_path.logit == by_bytes.logit == by_path_object.logit
    assert predict([]) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"", "empty"),
        (b"no image at all", "not_an_image"),
        ("missing.png", r"missing\.png can't be scored \(unreadable"),
        ("a\nb\x00c", r"a\\nb\\x00c can't be scored \(unreadable"),
        ("/dev/zero", "unreadable"),
    ],
)
def test_what_is_no_radiograph_is_an_error_or_left_out(predict, files, bad, said, caplog):
    with pytest.raises(DataError, match=said):
        predict([files[0], bad, files[1]])
    with caplog.at_level(logging.WARNING):
        found = predict([files[0], bad, files[1]], skip_refused=True)
    assert [prediction.file for prediction in found] == files[:2]
    assert re.search(said, caplog.text)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_file_may_be_any_kind_of_bytes(predict, files, kind):
    content = pathlib.Path(files[0]).read_bytes()
    (found,), (expected,) = predict(kind(content)), predict(content)
    assert found.logit == expected.logit


def test_an_open_file_is_refused(predict):
    with pytest.raises(ConfigError, match=r"got an open file; pass file\.read\(\)"):
        predict(io.BytesIO(b""))


def test_a_forked_child_makes_a_predictor_of_its_own(predict, files, monkeypatch):
    """The child is a double: one that really waited would wait for ever."""
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ConfigError, match="before the process was forked"):
        predict(files[0])


def test_a_network_that_has_diverged_scores_nothing(model, files, monkeypatch):
    outputs = {"probability": np.full(8, np.nan), "logit": np.zeros(8), "cam": np.zeros((8, 1, 1))}
    diverged = types.SimpleNamespace(run=lambda images: outputs)
    monkeypatch.setattr(engines, "load", lambda *arguments: diverged)
    with pytest.raises(DataError, match="answers probability nan"):
        Predictor(model)(files[0])


def test_a_threshold_of_ones_own_moves_labels_only(predict, model, files):
    always = Predictor(model, engine="tensorflow", threshold=0.0)(files)
    never = Predictor(model, engine="tensorflow", threshold=1.0)(files)
    assert {found.label for found in always} == {"positive"}
    assert {found.label for found in never} == {"negative"}
    assert [found.logit for found in always] == [found.logit for found in predict(files)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "nowhere"}, "nowhere is not an exported model"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"threshold": 1.5}, r"threshold=1\.5"),
        ({"engine": "tensorflow", "precision": "int8"}, "has no --precision=int8"),
        ({"engine": "foo"}, "engine=foo: expected one of auto, openvino, onnx, tensorflow"),
        ({"precision": "foo"}, "has no --precision=foo; expected one of auto, int8, "),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(model, arguments, said):
    with pytest.raises(ConfigError, match=said):
        Predictor(**{"model": model, **arguments})


def test_a_model_and_a_file_in_a_bucket(model, predict, files, tmp_path, monkeypatch):
    script = (
        "import sys; from trainer.predictor import Predictor\n"
        "(found,) = Predictor(sys.argv[1], engine='tensorflow', batch_size=3)(sys.argv[2])\n"
        "print(repr(found.logit))"
    )
    with bucket_server.running(tmp_path) as server:
        for name, value in server.tensorflow_environment.items():
            monkeypatch.setenv(name, value)
        uri = server.make_bucket("models")
        for path in model.rglob("*"):
            if path.is_file():
                server.put("models", f"a/{path.relative_to(model)}", path.read_bytes())
        server.put("models", "arm.png", pathlib.Path(files[0]).read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", script, f"{uri}/a", f"{uri}/arm.png"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) == predict(files[0])[0].logit
