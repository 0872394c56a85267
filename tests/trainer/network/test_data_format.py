"""Channels first computes what channels last does. TensorFlow's own kernels for it are the GPU's; on a CPU, XLA has some."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_recipe, small_run
from trainer.errors import ConfigError
from trainer.network import data_format
from trainer.network import model as model_lib
from trainer.network.data_format import CHANNELS_FIRST, CHANNELS_LAST
from trainer.network.model import Architecture
from trainer.network.serving import Member
from trainer.publishing import export
from trainer.training import train
from trainer.training.build_run import assemble
from trainer.training.loop import State

TRAIN, VALIDATION = small_run.split(16), small_run.split(6, seed=1, name="validation")


def built(backbone: str, size: int) -> keras.Model:
    """With statistics under which every layer matters to the end."""
    model, rng = (
        model_lib.build(Architecture(backbone, "avg", (5,)), size),
        np.random.default_rng(0),
    )
    for layer in model_lib.backbone_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def computed(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    compiled = tf.function(lambda image: model(image, training=False), jit_compile=True)
    return {name: value.numpy() for name, value in compiled(tf.constant(images)).items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        assert np.abs(value).max() > 0
        np.testing.assert_allclose(found[name], value, atol=2e-5 * np.abs(value).max())


@pytest.mark.parametrize(
    "backbone, size",
    [
        ("tinynet", 32),
        ("smallnet", 48),
        pytest.param("densenet121", 64, marks=pytest.mark.slow),
        pytest.param("mobilenetv2", 64, marks=pytest.mark.slow),
        pytest.param("xception", 71, marks=pytest.mark.slow),
    ],
)
def test_either_order_computes_the_same_of_the_same_weights(backbone, size):
    last = built(backbone, size)
    first = data_format.convert(last, CHANNELS_FIRST)
    images, _ = small_run.pictures(3, size)
    names = [layer.name for layer in model_lib.backbone_layers(last)]
    assert [layer.name for layer in model_lib.backbone_layers(first)] == names
    convolutions = [
        layer for layer in model_lib.backbone_layers(first) if hasattr(layer, "data_format")
    ]
    assert len(convolutions) > 2 and {layer.data_format for layer in convolutions} == {
        CHANNELS_FIRST
    }
    expected = {name: value.numpy() for name, value in last(images, training=False).items()}
    assert_same(computed(first, images), expected)
    plain = export._plain_copy(Member(first)).model
    assert not [
        layer
        for layer in plain.layers
        if getattr(layer, "data_format", CHANNELS_LAST) == CHANNELS_FIRST
    ]
    assert_same(
        {name: value.numpy() for name, value in plain(images, training=False).items()}, expected
    )


def test_either_order_learns_the_same(tmp_path):
    learnt = []
    for order in (CHANNELS_LAST, CHANNELS_FIRST):
        config = small_recipe.get_config()
        config.update(data_format=order, xla=True, dropout=0.0)
        strategy = tf.distribute.get_strategy()
        model, _, run = assemble(
            config, strategy, {"image_size": 32}, TRAIN, VALIDATION, str(tmp_path)
        )
        before = [w.shape for w in model.get_weights()]
        row = run.loop.train_epoch(TRAIN, State(), 8, augmentation=None, seed=0)
        learnt.append((row["loss"], before, model.get_weights()))
    assert learnt[0][0] == pytest.approx(learnt[1][0], rel=1e-4)
    assert learnt[0][1] == learnt[1][1], "a checkpoint of one order is one of the other"
    for ours, theirs in zip(learnt[0][2], learnt[1][2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_layer_that_is_not_known_to_work_so_is_named():
    model = model_lib.build(Architecture("efficientnetb0", "avg", ()), 32)
    with pytest.raises(
        ConfigError,
        match=r"data_format=channels_first: the backbone has a layer of kind Rescaling, .* another backbone",
    ):
        data_format.convert(model, CHANNELS_FIRST)


def test_without_a_gpu_it_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        train.input_pipeline, "metadata", lambda data_dir: {"fingerprint": "x", "image_size": 32}
    )
    config = small_recipe.get_config()
    config.data_format = CHANNELS_FIRST
    with pytest.raises(ConfigError, match="TensorFlow can do that on GPUs only"):
        train.train_and_evaluate(config, "unused", str(tmp_path))
    assert not list(tmp_path.iterdir())
