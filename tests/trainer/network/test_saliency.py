"""Each method is checked by hand, by its own laws, and against what other libraries compute."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import saliency_reference, small_run, tiny_net  # noqa: F401 (makes the backbone known)
from trainer import artifact
from trainer.errors import ConfigError
from trainer.network import cam, cam_formulas, saliency
from trainer.network import model as model_lib


@pytest.fixture(scope="module")
def by_hand() -> keras.Model:
    """Build a network that a person can follow: 4x4 pixels -> 2x2 cells of two channels -> logit.

    The channels are the sum of a cell's pixels (A) and 8 less it (B); the logit is
    `WEIGHTS` A - B + 0.5.
    """
    image = keras.Input((4, 4, 1), dtype="uint8")
    x = keras.layers.Rescaling(1.0)(image)
    x = keras.layers.Conv2D(2, 2, strides=2, activation="relu", name="conv")(x)
    model = keras.Model(
        image, {"logit": keras.layers.Dense(1, name="logit")(keras.layers.Flatten()(x))}
    )
    kernel = np.concatenate([np.ones((2, 2, 1, 1)), -np.ones((2, 2, 1, 1))], axis=-1)
    model.get_layer("conv").set_weights([kernel, np.array([0.0, 8.0])])
    weights = np.stack([WEIGHTS, -np.ones((2, 2))], axis=-1)
    model.get_layer("logit").set_weights([weights.reshape(8, 1), np.array([0.5])])
    return model


IMAGE = np.array([[1, 1, 0, 0], [1, 1, 0, 2], [0, 0, 3, 3], [0, 0, 3, 3]], np.uint8)[
    None, ..., None
]
A = np.array([[4.0, 2.0], [0.0, 12.0]])  # sums of the cells
B = np.array([[4.0, 6.0], [8.0, 0.0]])  # 8 - A, nowhere below 0
WEIGHTS = np.array(
    [[1.0, 2.0], [1.0, 0.0]]
)  # the gradient of A, whose mean is 1; that of B is -1 everywhere


def logit_of(sums: np.ndarray) -> float:
    return (WEIGHTS * sums).sum() - np.maximum(8 - sums, 0).sum() + 0.5


def test_gradients_by_hand(by_hand):
    """Four methods, four answers."""
    np.testing.assert_allclose(
        saliency.METHODS["grad_cam"](by_hand, IMAGE, "conv")[0], [[0, -4], [-8, 12]]
    )  # A - B
    np.testing.assert_allclose(
        saliency.METHODS["hires_cam"](by_hand, IMAGE, "conv")[0], [[0, -2], [-8, 0]]
    )  # WEIGHTS A - B
    np.testing.assert_allclose(
        saliency.METHODS["layer_cam"](by_hand, IMAGE, "conv")[0], [[4, 4], [0, 0]]
    )  # WEIGHTS A
    # Pixel weights g^2 / (2 g^2 + 18 g^3), for A sums to 18: 1/20, 1/38, 1/20 and 0, of their sum
    # 19/48, 10/48, 19/48. With these, the mean of WEIGHTS is 29/24. B, whose gradient is negative,
    # counts nothing.
    np.testing.assert_allclose(
        saliency.METHODS["grad_cam_pp"](by_hand, IMAGE, "conv")[0], 29 / 24 * A, rtol=1e-6
    )


def test_score_cam_by_hand(by_hand):
    """A channel's weight is the softmax of the logit of the image that it masks in [0, 1]."""
    logits = []
    for channel in (A, B):
        mask = saliency.resize(channel[None].astype(np.float32), 4, 4)[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        seen = np.round(IMAGE[0, :, :, 0] * mask)
        logits.append(logit_of(seen.reshape(2, 2, 2, 2).sum(axis=(1, 3))))
    weight = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        saliency.score_cam(by_hand, IMAGE, "conv")[0], weight[0] * A + weight[1] * B, rtol=1e-5
    )


def test_occlusion_by_hand(by_hand, monkeypatch):
    """The one patch is painted in the mean, round(18 / 16) = 1: the logit is 0.5, not -9.5."""
    monkeypatch.setattr(saliency, "OCCLUSION_CELLS", 2)
    assert logit_of(A) == -9.5 and logit_of(np.full((2, 2), 4.0)) == 0.5
    np.testing.assert_allclose(
        saliency.occlusion(by_hand, IMAGE)[0], np.full((2, 2), -10), rtol=1e-6
    )
    monkeypatch.setattr(saliency, "OCCLUSION_CELLS", 4)
    found = saliency.occlusion(by_hand, IMAGE)[0]
    # A corner's patch is the one that covers its cell alone, and it brings A to 4 there: from 4, 2,
    # 0 and 12.
    np.testing.assert_allclose(found[[0, 0, 3, 3], [0, 3, 0, 3]], [0, -6, -8, 4], atol=1e-6)


def test_fused_by_hand(by_hand):
    """The fused map is the maximum of tanh(2 x / max) of finer maps and x / max of the deepest."""
    fused = saliency.METHODS["fused_layer_cam"](by_hand, IMAGE, "conv")[0]
    np.testing.assert_allclose(fused.max(), 4.0)
    fine, deep = (
        saliency.METHODS["layer_cam"](by_hand, IMAGE, name)[0]
        for name in saliency.block_ends(by_hand)
    )
    assert fine.shape == (4, 4) and deep.shape == (2, 2)
    expected = (
        np.maximum(
            np.tanh(2 * fine / fine.max()), saliency.resize(deep[None], 4, 4)[0] / deep.max()
        )
        * deep.max()
    )
    np.testing.assert_allclose(fused, expected, rtol=1e-6)


def test_refined_by_hand(by_hand):
    """One channel before the last: the pixels less their mean, 18 / 16, times the positive map."""
    map_ = saliency.resize(np.array([[[0, -4], [-8, 12]]], np.float32), 4, 4)[0].clip(0)
    centred = IMAGE[0, ..., 0] - 18 / 16
    weight = (centred * map_).sum()
    alike = (centred * weight).clip(0)
    assert weight > 0 and map_.argmax() == 15
    found = saliency.METHODS["refined_cam"](by_hand, IMAGE, "conv")[0]
    np.testing.assert_allclose(found, map_ * alike / alike.max(), rtol=1e-5, atol=1e-6)
    # The bright pixels of the cell at the lower right, where the map is positive.
    assert (found[2:, 2:] > 0).all() and not found[:2, :2].any()


def test_refining_ignores_a_change_of_sign_or_scale_and_an_offset_of_a_channel():
    """A channel of the other sign has a weight of the other sign."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(2, 3, 3)).astype(np.float32)
    finer = random.normal(size=(2, 6, 6, 5)).astype(np.float32)
    refined = cam_formulas.refine(coarse, tf.constant(finer)).numpy()
    flipped = finer * [-1, 1, -1, 1, 1] + [5, 0, -3, 0, 9]
    again = cam_formulas.refine(coarse, tf.constant(flipped, tf.float32)).numpy()
    np.testing.assert_allclose(again, refined, rtol=1e-3, atol=1e-5)
    doubled = cam_formulas.refine(2 * coarse, tf.constant(3 * finer)).numpy()
    np.testing.assert_allclose(doubled, 2 * refined, rtol=1e-4, atol=1e-6)
    assert refined.min() == 0 and (refined.max((1, 2)) <= coarse.max((1, 2)) + 1e-6).all()
    assert not cam_formulas.refine(-np.abs(coarse), tf.constant(finer)).numpy().any()


REFERENCE = json.loads(saliency_reference.FILE.read_text())


def test_every_method_that_another_library_has_is_compared():
    assert set(REFERENCE) == set(saliency.METHODS) - {"fused_layer_cam", "refined_cam"}
    assert list(saliency.METHODS) == list(artifact.METHOD_TITLES)


@pytest.mark.parametrize(
    ("method", "layer"),
    [(method, layer) for method, answers in REFERENCE.items() for layer in answers],
)
def test_the_same_as_another_library(method, layer, monkeypatch):
    """Compare up to a factor per image, and without the sign where other software drops it."""
    monkeypatch.setattr(saliency, "OCCLUSION_CELLS", saliency_reference.OCCLUSION_CELLS)
    theirs = np.array(REFERENCE[method][layer])
    found = saliency.METHODS[method](
        saliency_reference.network(), saliency_reference.pictures(), layer
    )
    assert theirs.shape == found.shape and (theirs.max(axis=(1, 2)) > 0).any()
    for a, b in zip(found if theirs.min() < 0 else np.maximum(found, 0), theirs, strict=True):
        np.testing.assert_allclose(
            a / max(np.abs(a).max(), 1e-9), b / max(np.abs(b).max(), 1e-9), atol=1e-3
        )


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_at_the_last_layer_grad_cam_is_the_free_one(pooling):
    model = model_lib.build(model_lib.Architecture("tinynet", pooling, (16, 8)), 64, seed=2)
    model.trainable = False
    images, _ = small_run.pictures(5, 64)
    free = cam.grad_cam(model, model(images)).numpy()
    np.testing.assert_allclose(
        saliency.METHODS["grad_cam"](model, images, model_lib.FEATURES), free, rtol=1e-4, atol=1e-6
    )


def test_hires_cam_of_a_linear_head_sums_to_the_logit():
    model = model_lib.build(model_lib.Architecture("tinynet", "max", ()), 64, seed=3)
    images, _ = small_run.pictures(5, 64)
    logit = model(images)[model_lib.LOGIT].numpy()[:, 0]
    np.testing.assert_allclose(
        saliency.METHODS["hires_cam"](model, images, model_lib.FEATURES).sum(axis=(1, 2)),
        logit,
        rtol=1e-4,
    )


@pytest.mark.parametrize("method", saliency.METHODS)
def test_each_image_has_the_map_that_it_has_alone_and_finite(method):
    model = model_lib.build(model_lib.Architecture("tinynet", "avg", ()), 48, seed=1)
    images, _ = small_run.pictures(3, 48)
    together = saliency.METHODS[method](model, images, model_lib.FEATURES)
    assert together.dtype == np.float32 and together.ndim == 3 and np.isfinite(together).all()
    alone = np.concatenate(
        [saliency.METHODS[method](model, image[None], model_lib.FEATURES) for image in images]
    )
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-5)


def test_block_ends_of_the_real_network():
    model = model_lib.build(model_lib.Architecture(), 96)
    shapes = saliency.layers(model)
    assert [shapes[name][:2] for name in saliency.block_ends(model)] == [
        (24, 24),
        (12, 12),
        (6, 6),
        (3, 3),
    ]
    assert saliency.block_ends(model)[-1] == model_lib.FEATURES
    assert shapes["conv3_block12_concat"] == (12, 12, 512)


def test_no_block_ends_before_the_backbone():
    """The normalised image is no block end: its noise would be in the fused map."""
    model = model_lib.build(model_lib.Architecture("tinynet", "avg", ()), 48)
    assert saliency.block_ends(model) == ["block1_relu", "block2_relu", model_lib.FEATURES]


def test_an_unknown_layer_is_a_sentence(by_hand):
    with pytest.raises(ConfigError, match=r"no layer 'conv9' with a map; it has .*conv"):
        saliency.METHODS["grad_cam"](by_hand, IMAGE, "conv9")
