"""Maps of methods that need gradients: a signature of the model, drawn on a scale of their own."""

import pathlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

from batch_inference import pipeline
from batch_inference.outputs import cam_store, overlay_pictures
from tests.batch_inference.conftest import json_rows
from tests.support import small_artifact, small_run
from trainer import artifact
from trainer.drawing import overlay
from trainer.errors import ConfigError
from trainer.network import saliency, trained_network

METHODS = ("fused_layer_cam", "hires_cam")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """Two members of different temperatures, with two methods beside the free one."""
    folder = tmp_path_factory.mktemp("method") / "artifact"
    small_artifact.make(folder, small_artifact.network(2), cam_methods=METHODS)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(small_run.pictures(3, 48)[0]):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


def score(images, model, output, **options):
    return pipeline.run(pipeline.Options(str(images), str(model), str(output), **options))


@pytest.mark.parametrize("method", METHODS)
def test_the_signature_answers_as_explain_does(model, method):
    described = artifact.load(model)
    pixels = small_run.pictures(3, 48)[0]
    loaded = tf.saved_model.load(str(model))
    served = loaded.signatures[method](image=tf.constant(pixels))
    free = loaded.signatures["serving_default"](image=tf.constant(pixels))
    expected = trained_network.compute_maps(
        trained_network.load(str(model), described), method, pixels, "features"
    )
    np.testing.assert_allclose(served["cam"].numpy(), expected, rtol=1e-4, atol=1e-6)
    for name in ("probability", "logit"):
        np.testing.assert_allclose(served[name].numpy(), free[name].numpy(), rtol=1e-5)
    told = described.cam["methods"][method]
    assert (told["height"], told["width"]) == expected.shape[1:] and told["scale"] > 0


@pytest.mark.slow
def test_scored_with_a_method_only_the_pictures_differ(model, images, tmp_path):
    for name, options in {"free": {}, "fused": {"method": "fused_layer_cam"}}.items():
        score(
            images, model, tmp_path / name, cam_format="png", **({"engine": "tensorflow"} | options)
        )
    # Other engines take the free map's signature, whatever else there is.
    score(images, model, tmp_path / "openvino", engine="openvino", cam="none")
    others = json_rows(tmp_path / "openvino", "predictions")
    free, fused = (json_rows(tmp_path / name, "predictions") for name in ("free", "fused"))
    for a, b, c in zip(free, fused, others, strict=True):
        assert abs(a["probability"] - c["probability"]) < 1e-4 and c["engine"] == "openvino/float32"
        assert (
            abs(a["probability"] - b["probability"]) < 1e-6 and b["engine"] == "tensorflow/float32"
        )
        assert (tmp_path / "free" / a["cam"]).read_bytes() != (
            tmp_path / "fused" / b["cam"]
        ).read_bytes()
    described = artifact.load(model)
    pixels = cv2.imread(str(images / "0.png"), cv2.IMREAD_GRAYSCALE)
    cam = trained_network.compute_maps(
        trained_network.load(str(model), described),
        "fused_layer_cam",
        pixels[None, ..., None],
        "features",
    )[0]
    expected = overlay.draw(
        pixels, cam, 48, described.cam["methods"]["fused_layer_cam"]["scale"], "overlay"
    )
    drawn = cv2.imread(str(tmp_path / "fused" / fused[0]["cam"]))
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_packed_maps_carry_the_methods_size_and_scale(model, images, tmp_path):
    score(images, model, tmp_path, method="fused_layer_cam", cam_store="parquet")
    (pack,) = (tmp_path / "cams").glob("*.parquet")
    (row, *_) = json_rows(tmp_path, "predictions")
    (packed,) = overlay_pictures.select_maps(str(pack), {(row["uri"], None)})
    told = artifact.load(model).cam["methods"]["fused_layer_cam"]
    assert (packed.cam_height, packed.cam_width, packed.scale) == (
        told["height"],
        told["width"],
        told["scale"],
    )
    assert cam_store.draw_map(packed, "overlay").shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (
            {"method": "occlusion"},
            ConfigError,
            r"draws maps by grad_cam, fused_layer_cam, hires_cam, not by occlusion",
        ),
        (
            {"method": "hires_cam", "engine": "openvino"},
            ConfigError,
            "needs gradients, which only tensorflow/float32 has",
        ),
        (
            {"method": "hires_cam", "precision": "bfloat16"},
            ConfigError,
            "omit --engine and --precision",
        ),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(model, images, tmp_path, options, error, sentence):
    with pytest.raises(error, match=sentence):
        score(images, model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_only_what_exports_is_exported():
    assert (
        saliency.parse_exported_methods(" , ".join(saliency.EXPORTED)) == saliency.EXPORTED
        and saliency.parse_exported_methods("") == ()
    )
    with pytest.raises(
        ConfigError, match="cam_methods=score_cam: expected one or several of hires_cam"
    ):
        saliency.parse_exported_methods("hires_cam,score_cam")
