"""The map that costs a forward pass equals Grad-CAM by automatic differentiation."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_run, tiny_net  # noqa: F401 (makes the backbone known)
from trainer.network import cam
from trainer.network import model as model_lib
from trainer.network.model import Architecture
from trainer.network.serving import Member, Network, serving_function

HEADS = {"linear": (), "three layers": (1024, 1024, 512)}


def a_model(pooling: str, widths: tuple[int, ...], backbone: str = "tinynet", size: int = 64):
    """Build a model of random weights and biases, so that no symmetry hides a mistake."""
    model = model_lib.build(model_lib.Architecture(backbone, pooling, widths, dropout=0.4), size)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if layer.name == model_lib.LOGIT or layer.name.startswith("head_"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * 3, rng.normal(0, 0.1, bias.shape)])
        elif "bn" in layer.name:
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def grad_cam_by_tape(model, image: np.ndarray) -> np.ndarray:
    """Compute Grad-CAM from its definition, float32 [B, h, w].

    Selvaraju et al. 2017, eq. 1 and 2 without the ReLU.
    """
    features = tf.constant(model(image, training=False)[model_lib.FEATURES])
    names = [layer.name for layer in model.layers]
    tail = model.layers[names.index(model_lib.FEATURES) + 1 :]
    with tf.GradientTape() as tape:
        tape.watch(features)
        x = features
        for layer in tail:
            x = layer(x, training=False)
    weights = tf.reduce_mean(tape.gradient(x, features), axis=(1, 2), keepdims=True)
    return tf.reduce_sum(weights * features, axis=-1).numpy()


def assert_same_map(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(expected).max() > 0 and (expected < 0).any()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("head", HEADS)
def test_the_exported_map_is_grad_cam(tmp_path, pooling, head):
    model = a_model(pooling, HEADS[head])
    images, _ = small_run.pictures(9, 64)
    tf.saved_model.save(
        model,
        str(tmp_path),
        signatures=serving_function(Network((Member(model, Architecture()),))),
    )
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](
        image=tf.constant(images)
    )
    assert_same_map(served["cam"].numpy(), grad_cam_by_tape(model, images))
    assert_same_map(cam.grad_cam(model, model(images)).numpy(), grad_cam_by_tape(model, images))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_map_of_the_real_network_is_grad_cam(pooling):
    model = a_model(pooling, HEADS["three layers"], "densenet121", 96)
    images, _ = small_run.pictures(4, 96)
    assert_same_map(
        serving_function(Network((Member(model, Architecture()),)))(tf.constant(images))[
            "cam"
        ].numpy(),
        grad_cam_by_tape(model, images),
    )


def test_with_mean_pooling_and_a_linear_head_the_map_sums_to_the_logit():
    model = a_model("avg", ())
    images, _ = small_run.pictures(5, 64)
    outputs = model(images)
    bias = model.get_layer(model_lib.LOGIT).bias.numpy()
    logit = outputs[model_lib.LOGIT].numpy()[:, 0]
    np.testing.assert_allclose(
        cam.grad_cam(model, outputs).numpy().sum((1, 2)) + bias, logit, rtol=1e-4
    )


def test_the_gradient_of_the_head_by_hand():
    model = a_model("avg", (3,))
    first, last = model_lib.head_layers(model)
    kernel = np.zeros((16, 3), np.float32)
    kernel[0], kernel[1] = [1, -1, 2], [0, 1, -3]
    first.set_weights([kernel, np.array([0.0, 0.5, 0.0], np.float32)])
    last.set_weights([np.array([[2.0], [10.0], [-1.0]], np.float32), np.zeros(1, np.float32)])
    pooled = np.zeros((2, 16), np.float32)
    pooled[0, :2], pooled[1, :2] = [1, 1], [1, 0]
    # Image 0: hidden = relu(1, 0.5, -1), so units 0 and 1 are on; image 1: relu(1, -0.5, 2), units
    # 0 and 2.
    expected = np.zeros((2, 16))
    expected[0, :2] = [2 * 1 + 10 * -1, 2 * 0 + 10 * 1]
    expected[1, :2] = [2 * 1 - 1 * 2, 2 * 0 - 1 * -3]
    np.testing.assert_allclose(
        cam.head_gradient(tf.constant(pooled), [first, last]).numpy(), expected
    )


def test_each_image_has_the_map_that_it_has_alone():
    model = a_model("max", (32, 16))
    images, _ = small_run.pictures(4, 64)
    serve = serving_function(Network((Member(model, Architecture()),)))
    together = serve(tf.constant(images))["cam"].numpy()
    alone = np.concatenate([serve(tf.constant(image[None]))["cam"].numpy() for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
