"""The network in ONNX answers as the SavedModel does, for every kind of network that is served."""

import dataclasses
import shutil

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tests.support import small_artifact
from trainer import artifact
from trainer.artifact import ONNX_NETWORK, OUTPUTS
from trainer.inference import onnx_engine
from trainer.network import saliency
from trainer.publishing import onnx_export, verify
from trainer.publishing.verification_images import Sample

TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An artifact of two networks and all flipped copies, verified on noise."""
    directory = tmp_path_factory.mktemp("run") / "artifact"
    network = dataclasses.replace(small_artifact.network(2), flips="both")
    method = next(iter(saliency.EXPORTED))
    small_artifact.make(directory, network, cam_methods=(method,))
    images = np.random.default_rng(5).integers(0, 256, (9, 48, 48, 1), dtype=np.uint8)
    sample = Sample(images, None, "images")
    return directory, verify.verify(directory, sample, sample), images


def test_members_flipped_copies_and_calibration_are_inside(exported):
    directory, described, images = exported
    served = tf.saved_model.load(str(directory)).signatures["serving_default"]
    session = onnxruntime.InferenceSession(directory / ONNX_NETWORK)
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(OUTPUTS)
    for count in (1, 9):  # a batch of any size
        expected = served(image=tf.constant(images[:count]))
        found = dict(zip(names, session.run(names, {"image": images[:count]}), strict=True))
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)
    record = described.engines["onnx/float32"]
    assert record["within_tolerance"] and record["device"] == "CPU"
    assert ONNX_NETWORK in described.files


def test_a_conversion_that_fails_leaves_the_other_engines(exported, monkeypatch, caplog, tmp_path):
    directory, _, images = exported
    copy = shutil.copytree(directory, tmp_path / "artifact")
    (copy / ONNX_NETWORK).unlink()
    artifact.amend(copy, artifact.load(directory), engines={})

    def fail(model, folder):
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(onnx_export, "export", fail)
    sample = Sample(images, None, "images")
    verified = verify.verify(copy, sample, sample)
    assert "No network in ONNX was made: NotImplementedError: no such operator" in caplog.text
    assert ONNX_NETWORK not in verified.files and "onnx/float32" not in verified.engines
    assert verified.engines["openvino/float32"]["within_tolerance"]


@pytest.mark.parametrize(
    ("present", "has_gpu", "has_tensorrt", "expected"),
    [
        ((TENSORRT, CUDA, CPU), True, True, [TENSORRT, CUDA, CPU]),
        ((TENSORRT, CUDA, CPU), True, False, [CUDA, CPU]),
        ((TENSORRT, CUDA, CPU), False, True, [CPU]),
        (("AzureExecutionProvider", CPU), True, True, [CPU]),
    ],
)
def test_a_provider_is_asked_for_where_package_and_machine_have_it(
    monkeypatch, present, has_gpu, has_tensorrt, expected
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(present))
    monkeypatch.setattr(onnx_engine, "has_tensorrt", lambda: has_tensorrt)
    assert onnx_engine.choose_providers(has_gpu) == expected
    assert onnx_engine.runs_on_gpu(has_gpu) == (len(expected) > 1)
