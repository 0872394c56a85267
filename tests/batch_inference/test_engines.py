"""Which engine is taken, and that both give the numbers of the exported model."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from batch_inference import engines
from batch_inference.engines import Choice
from batch_inference.model_handler import ScoringHandler
from batch_inference.records import Example, Rejection, Scored, Source
from trainer import artifact
from trainer.errors import ConfigError

FINE = {"within_tolerance": True}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 32, 32, 1), dtype=np.uint8)


@pytest.mark.parametrize("choice", [Choice("tensorflow", "float32"), Choice("openvino", "float32")], ids=str)
def test_an_engine_gives_what_the_saved_model_gives(model, images, choice):
    loaded = tf.saved_model.load(str(model))
    expected = loaded.signatures["serving_default"](image=tf.constant(images))
    outputs = engines.load(model, artifact.load(model), choice, batch_size=6).run(images)
    assert set(outputs) == {"probability", "logit", "cam"}
    for name, value in outputs.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-5, atol=2e-6)


def test_openvino_answers_are_not_overwritten_by_the_next_batch(model, images):
    engine = engines.load(model, artifact.load(model), Choice("openvino", "float32"), batch_size=3)
    first = engine.run(images[:3])
    kept = first["logit"].copy()
    engine.run(images[3:])
    np.testing.assert_array_equal(first["logit"], kept)


def test_openvino_keeps_its_conversion(model, cache, images):
    described = artifact.load(model)
    before = engines.load(model, described, Choice("openvino", "float32"), batch_size=6).run(images)
    kept = list((cache / "humerus" / "openvino").glob(f"{described.model_id}-*/model.xml"))
    assert len(kept) == 1
    after = engines.load(pathlib.Path("/nowhere"), described, Choice("openvino", "float32"), batch_size=6).run(images)
    np.testing.assert_array_equal(before["logit"], after["logit"])


def test_openvino_works_where_nothing_can_be_kept(model, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert engines.load(model, artifact.load(model), Choice("openvino", "float32"), batch_size=6).run(images)["cam"].shape == (
        6,
        4,
        4,
    )


def test_scoring_with_openvino_never_imports_tensorflow(model, radiographs, tmp_path):
    program = (
        "import sys; from batch_inference import main; "
        f"code = main.score(['humerus-score', '--input={radiographs}', '--model={model}', '--output={tmp_path / 'out'}']); "
        "sys.exit(code or ('tensorflow' in sys.modules) * 9)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300, check=False).returncode == 0


def choose(recorded: dict, model, *asked: str) -> str:
    return str(engines.choose(dataclasses.replace(artifact.load(model), engines=recorded), *asked))


def test_only_a_verified_engine_is_taken_of_its_own_accord(model, monkeypatch):
    monkeypatch.setattr(engines, "_has_gpu", lambda: False)
    monkeypatch.setattr(engines, "_cpu_capabilities", lambda: ("FP32", "BF16"))
    both = {"openvino/float32": FINE, "openvino/bfloat16": FINE}
    assert choose({}, model) == "tensorflow/float32"
    assert choose({"openvino/float32": {"within_tolerance": False}}, model) == "tensorflow/float32"
    assert choose({"openvino/float32": FINE}, model) == "openvino/float32"
    assert choose(both, model) == "openvino/bfloat16"
    assert choose(both, model, "auto", "float32") == "openvino/float32"
    assert choose(both, model, "tensorflow") == "tensorflow/float32"
    monkeypatch.setattr(engines, "_cpu_capabilities", lambda: ("FP32",))
    assert choose(both, model) == "openvino/float32"
    monkeypatch.setattr(engines, "_has_gpu", lambda: True)
    assert choose(both, model) == "tensorflow/float32"


def test_an_unverified_engine_is_used_only_when_named(model, caplog):
    assert choose({}, model, "openvino") == "openvino/float32"
    assert choose({}, model, "openvino", "bfloat16") == "openvino/bfloat16"
    with pytest.raises(ConfigError, match="no engine as verified for --precision=bfloat16"):
        choose({}, model, "auto", "bfloat16")
    with pytest.raises(ConfigError, match="as exported, in float32"):
        choose({}, model, "tensorflow", "bfloat16")


def test_without_the_extra_everything_runs_on_tensorflow(model, monkeypatch):
    monkeypatch.setattr(engines, "_has_openvino", lambda: False)
    assert choose({"openvino/float32": FINE}, model) == "tensorflow/float32"
    with pytest.raises(ConfigError, match="needs the package openvino"):
        choose({}, model, "openvino")


def test_of_workers_elsewhere_nothing_is_taken_for_granted(model, monkeypatch):
    monkeypatch.setattr(engines, "_has_openvino", lambda: False)
    described = dataclasses.replace(artifact.load(model), engines={"openvino/float32": FINE, "openvino/bfloat16": FINE})
    asked = {(): "tensorflow/float32", ("openvino",): "openvino/float32", ("openvino", "bfloat16"): "openvino/bfloat16"}
    for words, answer in asked.items():
        assert str(engines.choose(described, *words, runs_here=False)) == answer


class _Stub:
    """Answers with the mean of each image; not a number for a black one."""

    def __init__(self):
        self.shapes = []

    def run(self, image):
        self.shapes.append(image.shape)
        mean = image.mean(axis=(1, 2, 3), dtype=np.float32)
        return {
            "probability": mean / 255,
            "logit": np.where(mean > 0, mean, np.nan),
            "cam": image[:, :4, :4, 0].astype(np.float32),
        }


def test_batches_have_one_shape_and_numbers_must_be_finite(images):
    images[1] = 0
    examples = [Example(Source(f"/{i}", f"{i}"), pixels, None, f"sha{i}", "") for i, pixels in enumerate(images)]
    handler, stub = ScoringHandler("/model", Choice("tensorflow", "float32"), 8, "id"), _Stub()
    answers = list(handler.run_inference(examples, stub))
    assert stub.shapes == [(8, 32, 32, 1)]
    assert [type(answer) for answer in answers] == [Scored, Rejection, Scored, Scored, Scored, Scored]
    assert answers[1] == Rejection("/1", "inference_failed", "the model answered probability 0.0, logit nan", "id", "sha1")
    assert [answer.example for answer in answers if isinstance(answer, Scored)] == [examples[i] for i in (0, 2, 3, 4, 5)]
    assert answers[2].logit == pytest.approx(images[2].mean(), rel=1e-5)
