"""Which engine is taken, and that both give the numbers of the exported model."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from batch_inference import main
from batch_inference.options import Options
from batch_inference.outputs.records import Example, Rejection, Scored, Source
from batch_inference.scoring import engine_loading
from batch_inference.scoring.engine_loading import Request
from batch_inference.scoring.model_handler import ScoringHandler
from tests.batch_inference.conftest import json_rows
from tests.support import tiny_artifact
from trainer import artifact, machine
from trainer.errors import ConfigError
from trainer.evaluation import agreement
from trainer.inference import engine_choice, engines, openvino_engine
from trainer.inference.engines import Choice
from trainer.inference.tensorflow_engine import TensorFlowEngine
from trainer.publishing import onnx_export, verify

FINE = {"within_tolerance": True}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 32, 32, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(model, tmp_path_factory) -> pathlib.Path:
    """The artifact of all tests of the scorer, with its network in ONNX."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("onnx") / "artifact")
    onnx_export.export(folder, folder)
    artifact.amend(folder, artifact.load(model))
    return folder


@pytest.mark.parametrize("name", ["tensorflow/float32", "openvino/float32", "onnx/float32"])
def test_an_engine_gives_what_the_saved_model_gives(model, images, name):
    choice = Choice(*name.split("/"))
    loaded = tf.saved_model.load(str(model))
    expected = loaded.signatures["serving_default"](image=tf.constant(images))
    outputs = engines.load(model, artifact.load(model), choice, batch_size=6).run(images)
    assert set(outputs) == {"probability", "logit", "cam"}
    for name, value in outputs.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-5, atol=2e-6)


FLOAT32 = Choice("openvino", "float32")


def make_handler(model: pathlib.Path, choice: Choice = FLOAT32, batch_size: int = 4):
    request = Request(str(model), artifact.load(model).model_id, choice, batch_size)
    return ScoringHandler(request)


def make_options(artifact_path: pathlib.Path, **given) -> Options:
    usual = {"input": "in", "model": str(artifact_path), "output": "out", "batch_size": 4}
    return Options(**usual | given)


def test_an_engine_loaded_ahead_is_taken_once_by_the_handler_of_that_run(model, monkeypatch):
    loaded = []
    monkeypatch.setattr(engines, "load", lambda *given: loaded.append(given[:4]) or object())
    engine_loading.begin(make_options(model))
    engine = make_handler(model).load_model()
    assert len(loaded) == 1
    assert make_handler(model).load_model() is not engine
    assert len(loaded) == 2 and loaded[0] == loaded[1]


@pytest.mark.parametrize(
    ("choice", "batch_size"), [(Choice("tensorflow", "float32"), 4), (FLOAT32, 2)]
)
def test_a_handler_that_needs_another_engine_does_not_take_it(model, choice, batch_size):
    engine_loading.begin(make_options(model))
    engine = make_handler(model, choice, batch_size).load_model()
    outputs = engine.run(np.zeros((batch_size, 32, 32, 1), np.uint8))
    assert outputs["logit"].shape == (batch_size,)
    assert isinstance(engine, TensorFlowEngine) == (choice.engine == "tensorflow")


@pytest.mark.parametrize(
    "given",
    [
        {"beam": ("--runner=FlinkRunner",)},
        {"model": "gs://bucket/artifact"},
        {"engine": "tensorflow"},
    ],
    ids=str,
)
def test_nothing_is_loaded_ahead_that_this_process_may_not_need(model, given):
    engine_loading.begin(make_options(model))
    engine_loading.begin(make_options(model, **given))
    assert (
        engine_loading.take(Request(str(model), artifact.load(model).model_id, FLOAT32, 4)) is None
    )


def test_what_fails_ahead_fails_where_the_engine_is_needed(model, monkeypatch):
    def fail(*given):
        raise RuntimeError("no such network")

    monkeypatch.setattr(engines, "load", fail)
    engine_loading.begin(make_options(model))
    with pytest.raises(RuntimeError, match="no such network"):
        make_handler(model).load_model()


def test_what_failed_for_another_run_is_forgotten(model, tmp_path):
    engine_loading.begin(make_options(tmp_path / "nowhere"))
    assert make_handler(model).load_model()


def test_openvino_answers_are_not_overwritten_by_the_next_batch(model, images):
    engine = engines.load(model, artifact.load(model), Choice("openvino", "float32"), batch_size=3)
    first = engine.run(images[:3])
    kept = first["logit"].copy()
    engine.run(images[3:])
    np.testing.assert_array_equal(first["logit"], kept)


def test_openvino_starts_no_process_and_calls_nobody(model):
    program = """if True:
        import pathlib, sys
        refused = ("os.fork", "socket.connect", "socket.getaddrinfo")
        sys.addaudithook(lambda event, _: event in refused and print(event))
        from trainer import artifact
        from trainer.inference import engines
        model = pathlib.Path(sys.argv[1])
        engines.load(model, artifact.load(model), engines.Choice("openvino", "float32"), 1)
        print("loaded")
    """
    # `CI` would keep OpenVINO from telling what it is used for, and so hide that it is told not to.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", program, model],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.split() == ["loaded"]


def test_openvino_keeps_its_conversion(model, cache, images):
    described = artifact.load(model)
    before = engines.load(
        model, described, Choice("openvino", "float32"), 6, cache / "humerus"
    ).run(images)
    kept = list((cache / "humerus" / "openvino").glob(f"{described.saved_model_id}-*/model.xml"))
    assert len(kept) == 1
    after = engines.load(
        pathlib.Path("/nowhere"), described, Choice("openvino", "float32"), 6, cache / "humerus"
    ).run(images)
    np.testing.assert_array_equal(before["logit"], after["logit"])


def test_a_conversion_that_was_changed_is_made_anew(model, images, tmp_path):
    described, choice = artifact.load(model), Choice("openvino", "float32")
    expected = engines.load(model, described, choice, 6, tmp_path).run(images)["logit"]
    (kept,) = (tmp_path / "openvino").iterdir()
    changed = bytearray((kept / "model.bin").read_bytes())
    changed[len(changed) // 2 :] = os.urandom(len(changed) - len(changed) // 2)
    for name, content in {
        "model.bin": bytes(changed),
        "model.xml": b"<net>",
        "sha256.json": b"",
    }.items():
        (kept / name).write_bytes(content)
        np.testing.assert_array_equal(
            engines.load(model, described, choice, 6, tmp_path).run(images)["logit"], expected
        )
        assert (kept / name).read_bytes() != content and [
            path.name for path in kept.parent.iterdir()
        ] == [kept.name]
        np.testing.assert_array_equal(
            engines.load(pathlib.Path("/nowhere"), described, choice, 6, tmp_path).run(images)[
                "logit"
            ],
            expected,
        )


def test_openvino_works_where_nothing_can_be_kept(model, images, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    engine = engines.load(
        model, artifact.load(model), Choice("openvino", "float32"), 6, tmp_path / "file"
    )
    assert engine.run(images)["cam"].shape == (6, 4, 4)


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_scoring_with_a_fast_engine_never_imports_tensorflow(model, radiographs, tmp_path, engine):
    program = (
        "import sys; from batch_inference import main; "
        f"code = main.score(['humerus-score', '--input={radiographs}', '--model={model}', "
        f"'--engine={engine}', '--output={tmp_path / 'out'}']); "
        "sys.exit(code or ('tensorflow' in sys.modules) * 9)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=300, check=False
        ).returncode
        == 0
    )


def test_without_the_extra_a_folder_is_scored_all_the_same(model, radiographs, tmp_path):
    output = tmp_path / "out"
    program = (
        "import sys; sys.modules['openvino'] = sys.modules['nncf'] = None; "
        "from batch_inference import main; "
        f"sys.exit(main.score(['humerus-score', '--input={radiographs}', '--model={model}', "
        f"'--output={output}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {row["engine"] for row in json_rows(output, "predictions")} == {"tensorflow/float32"}
    assert done.stderr.count("scoring would be faster with OpenVINO") == 1


def test_once_verified_the_fast_engine_is_what_one_gets(radiographs, tmp_path):
    tiny_artifact.make(tmp_path / "model")
    flags = ["humerus-score", f"--input={radiographs}", f"--model={tmp_path / 'model'}"]
    assert main.score([*flags, f"--output={tmp_path / 'before'}"]) == 0
    record = verify.verify_artifact(str(tmp_path / "model"), None, str(radiographs)).engines
    assert main.score([*flags, f"--output={tmp_path / 'after'}"]) == 0
    before, after = (json_rows(tmp_path / name, "predictions") for name in ("before", "after"))
    assert {row["engine"] for row in before} == {"tensorflow/float32"}
    (engine,) = {row["engine"] for row in after}
    name = engine.partition("@")[0]
    assert name != "tensorflow/float32" and record[name]["within_tolerance"]
    for one, other in zip(before, after, strict=True):
        assert other["probability"] == pytest.approx(
            one["probability"], abs=agreement.CLOSE["probability_largest"]
        )


def choose(recorded: dict, model, *asked: str) -> str:
    return str(
        engine_choice.choose(dataclasses.replace(artifact.load(model), engines=recorded), *asked)
    )


@pytest.fixture
def modern(monkeypatch):
    """Simulate a processor with every feature that OpenVINO can use, and no GPU."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(openvino_engine, "cpu_capabilities", lambda: ("FP32", "BF16"))
    monkeypatch.setattr(machine, "has_int8_products", lambda: True)


def measured(images_per_second: float, device: str = "CPU", good: bool = True) -> dict:
    return {"within_tolerance": good, "images_per_second": images_per_second, "device": device}


def test_only_a_verified_engine_is_taken_of_its_own_accord(model, modern, monkeypatch):
    both = {"openvino/float32": FINE, "openvino/bfloat16": FINE}
    assert choose({}, model) == "tensorflow/float32"
    assert choose({"openvino/float32": {"within_tolerance": False}}, model) == "tensorflow/float32"
    assert choose({"openvino/float32": FINE}, model) == "openvino/float32"
    assert choose(both, model) == "openvino/bfloat16"
    assert choose(both | {"openvino/int8": FINE}, model) == "openvino/int8"
    assert choose(both, model, "auto", "float32") == "openvino/float32"
    assert choose(both, model, "tensorflow") == "tensorflow/float32"
    monkeypatch.setattr(machine, "has_int8_products", lambda: False)
    assert choose(both | {"openvino/int8": FINE}, model) == "openvino/bfloat16"
    monkeypatch.setattr(openvino_engine, "cpu_capabilities", lambda: ("FP32",))
    assert choose(both, model) == "openvino/float32"
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert choose(both, model) == "tensorflow/float32"


def test_of_those_the_one_that_was_measured_as_fastest(model, modern, monkeypatch):
    recorded = {
        "openvino/int8": measured(90),
        "openvino/bfloat16": measured(120),
        "openvino/float32": measured(500, good=False),
        "tensorflow/float32": measured(40),
    }
    assert choose(recorded, model) == "openvino/bfloat16"
    assert (
        choose(recorded | {"tensorflow/float32": measured(4000, "GPU")}, model)
        == "openvino/bfloat16"
    )
    assert choose(recorded | {"tensorflow/float32": measured(4000)}, model) == "tensorflow/float32"
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    on_gpu = {
        "tensorflow/float32": measured(2000, "GPU"),
        "tensorflow/float16": measured(4000, "GPU"),
    }
    assert choose(recorded | on_gpu, model) == "tensorflow/float16"
    assert (
        choose(recorded | on_gpu | {"tensorflow/float16": measured(4000, "GPU", good=False)}, model)
        == "tensorflow/float32"
    )


def test_an_unverified_engine_is_used_only_when_named(model, modern):
    assert choose({}, model, "openvino") == "openvino/float32"
    assert choose({}, model, "openvino", "bfloat16") == "openvino/bfloat16"
    with pytest.raises(ConfigError, match="no engine with --precision=bfloat16 is recorded"):
        choose({}, model, "auto", "bfloat16")
    with pytest.raises(
        ConfigError, match="has no --precision=bfloat16; expected one of auto, float16, float32"
    ):
        choose({}, model, "tensorflow", "bfloat16")
    with pytest.raises(ConfigError, match="holds no network for openvino/int8; make it with humer"):
        choose({}, model, "openvino", "int8")
    without = dataclasses.replace(artifact.load(model), files={})
    with pytest.raises(ConfigError, match=r"no network for onnx/float32; .* the extra `onnx`"):
        engine_choice.choose(without, "onnx")
    assert choose({}, model, "onnx") == "onnx/float32"


def test_without_the_extra_everything_runs_on_tensorflow_and_says_once_what_would_be_faster(
    model, monkeypatch, caplog
):
    monkeypatch.setattr(machine, "has_packages", lambda *names: "openvino" not in names)
    caplog.set_level("INFO", "absl")
    described = dataclasses.replace(artifact.load(model), engines={"openvino/float32": FINE})
    choice = engine_choice.choose(described)
    assert choice == engines.REFERENCE
    engine_choice.log_advice(described, choice, "auto", True)
    assert [record.getMessage() for record in caplog.records] == [
        "scoring would be faster with OpenVINO; install the extra `cpu`, in the checkout: "
        "uv pip install --constraint requirements.lock '.[cpu]'"
    ]
    with pytest.raises(ConfigError, match="needs the package openvino"):
        choose({}, model, "openvino")
    monkeypatch.setattr(machine, "has_packages", lambda *names: "onnxruntime" not in names)
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime; .*'\.\[onnx\]'"):
        choose({}, model, "onnx")


def test_openvino_leaves_the_log_in_its_form():
    script = (
        "from absl import logging; from trainer.inference import openvino_engine; "
        "from trainer.program import logging_setup, telemetry; "
        "telemetry.start(['']); logging_setup.configure_logs(); "
        "openvino_engine.import_openvino(); logging.error('said')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR said\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((), "tensorflow/float32"),
        (("openvino",), "openvino/float32"),
        (("openvino", "bfloat16"), "openvino/bfloat16"),
        (("openvino", "int8"), "openvino/int8"),
    ],
)
def test_of_workers_elsewhere_nothing_is_taken_for_granted(model, monkeypatch, words, answer):
    monkeypatch.setattr(machine, "has_packages", lambda *names: "openvino" not in names)
    recorded = {"openvino/float32": FINE, "openvino/bfloat16": FINE, "openvino/int8": FINE}
    described = dataclasses.replace(artifact.load(model), engines=recorded)
    assert str(engine_choice.choose(described, *words, runs_here=False)) == answer


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
    examples = [
        Example(Source(f"/{i}", f"{i}"), pixels, None, f"sha{i}", "")
        for i, pixels in enumerate(images)
    ]
    request = Request("/model", "id", Choice("tensorflow", "float32"), 8)
    handler, stub = ScoringHandler(request), _Stub()
    answers = list(handler.run_inference(examples, stub))
    assert stub.shapes == [(8, 32, 32, 1)]
    assert [type(answer) for answer in answers] == [
        Scored,
        Rejection,
        Scored,
        Scored,
        Scored,
        Scored,
    ]
    assert answers[1] == Rejection(
        "/1", "inference_failed", "the model answered probability 0.0, logit nan", "id", "sha1"
    )
    assert [answer.example for answer in answers if isinstance(answer, Scored)] == [
        examples[i] for i in (0, 2, 3, 4, 5)
    ]
    assert answers[2].logit == pytest.approx(images[2].mean(), rel=1e-5)
