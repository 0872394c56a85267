"""Flipped copies: each pass sees the image flipped, and its map is flipped back."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_artifact
from trainer.network import flips
from trainer.network.serving import serving_function

IMAGES = np.random.default_rng(3).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
COPIES = {
    "none": [lambda x: x],
    "horizontal": [lambda x: x, np.fliplr],
    "both": [lambda x: x, np.fliplr, np.flipud, lambda x: np.rot90(x, 2)],
}
"""Each copy by NumPy; all undo themselves."""


@pytest.fixture(scope="module")
def network():
    return small_artifact.network(2)


def serve(network, images):
    served = serving_function(network)(tf.constant(np.ascontiguousarray(images)))
    return served["logit"].numpy(), served["cam"].numpy()


@pytest.mark.parametrize("name", COPIES)
def test_logits_and_maps_are_means_over_the_copies(network, name):
    logit, maps = serve(dataclasses.replace(network, flips=name), IMAGES)
    logits, turned_back = [], []
    for copy in COPIES[name]:
        one, map_of_copy = serve(network, np.stack([copy(image) for image in IMAGES]))
        logits.append(one)
        turned_back.append([copy(cells) for cells in map_of_copy])
    assert np.ptp(logits, axis=0).min() > 1e-5 or name == "none"  # the copies differ
    np.testing.assert_allclose(logit, np.mean(logits, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps, np.mean(turned_back, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ({}, "none"),
        ({"mirrored": False}, "none"),
        ({"mirrored": True}, "horizontal"),
        ({"flips": "both"}, "both"),
    ],
)
def test_earlier_artifacts_are_read_too(architecture, name):
    assert flips.read(architecture) == name
