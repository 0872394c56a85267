"""The network of the demo, against its own arithmetic."""

import numpy as np

from trainer.network import model as model_lib


def build(size: int = 64):
    return model_lib.build(model_lib.Architecture("smallnet", "max", ()), size)


def test_its_map_has_a_sixteenth_of_the_side_and_pooling_takes_the_maximum():
    outputs = build()(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), np.uint8))
    features = outputs[model_lib.FEATURES].numpy()
    assert features.shape == (2, 4, 4, 96)
    np.testing.assert_array_equal(outputs[model_lib.POOLED], features.max((1, 2)))


def test_grey_enters_as_minus_one_to_three():
    model = build()
    weights = model.get_layer("conv1_1_conv")
    kernel = np.zeros(weights.kernel.shape, np.float32)
    kernel[1, 1, :, 0] = 1 / 3  # the mean of the three equal channels at the centre
    weights.set_weights([kernel])
    grey = np.full((1, 64, 64, 1), 192, np.uint8)
    seen = model_lib.keras.Model(model.input, weights.output)(grey).numpy()
    np.testing.assert_allclose(seen[0, 5, 5, 0], 2.0, rtol=1e-6)  # 192 / 64 - 1
