"""Make a very small artifact of the real format: one strided convolution, global average pooling, a
linear head.

Its logit is the sum of its CAM plus a bias, as with the real model, so that tests may check one
against the other.
"""

import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from trainer import artifact, radiograph

CELL = 8
POISON = 251


class TinyModel(tf.Module):
    """Maps uint8 [B, size, size, 1] to probability [B], logit [B], cam [B, size / 8, size / 8]."""

    def __init__(self, size: int, seed: int, poisonable: bool):
        super().__init__()
        random = np.random.default_rng(seed)
        self.kernel = tf.Variable(random.normal(0, 0.3, (CELL, CELL, 1, 4)).astype(np.float32))
        self.head = tf.Variable(random.normal(0, 1.0, (4,)).astype(np.float32))
        self.poisonable = poisonable
        self.serve = tf.function(
            self._serve,
            input_signature=[tf.TensorSpec([None, size, size, 1], tf.uint8, name="image")],
        )

    def _serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.poisonable:
            tf.debugging.Assert(
                tf.reduce_all(image[:, 0, 0, 0] != POISON), ["poison"], name="poison"
            )
        pixels = tf.cast(image, tf.float32) / 127.5 - 1.0
        features = tf.nn.relu(tf.nn.conv2d(pixels, self.kernel, strides=CELL, padding="VALID"))
        cells = tf.cast(tf.shape(features)[1] * tf.shape(features)[2], tf.float32)
        cam = tf.reduce_sum(features * self.head, axis=-1) / cells
        logit = tf.reduce_sum(cam, axis=[1, 2]) - 0.25
        return {"probability": tf.sigmoid(logit), "logit": logit, "cam": cam}


def make(
    directory: str | os.PathLike, size: int = 32, seed: int = 0, poisonable: bool = False, **fields
) -> artifact.Artifact:
    """Export and seal a tiny artifact in `directory`; `fields` replace those of
    `artifact.Artifact`.

    With `poisonable`, any batch with an image whose first pixel is `POISON` fails as a whole.
    """
    root = pathlib.Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    model = TinyModel(size, seed, poisonable)
    tf.saved_model.save(model, str(root), signatures={"serving_default": model.serve})
    described = {
        "image_size": size,
        "preprocessing": radiograph.PREPROCESSING,
        "threshold": 0.5,
        "temperature": 1.0,
        "uncertain_band": None,
        "cam": {"layer": "conv", "height": size // CELL, "width": size // CELL, "scale": 0.5},
        "architecture": {"backbone": "tiny", "pooling": "avg", "head_widths": []},
        "dataset": {"name": "none", "fingerprint": "0"},
        "metrics": {},
        "versions": {"tensorflow": tf.__version__},
        "created": "2026-01-01T00:00:00+00:00",
    }
    weights = model.kernel.numpy().tobytes() + model.head.numpy().tobytes()
    digest = hashlib.sha256(weights).hexdigest()
    return artifact.seal(root, weights_digest=digest, **(described | fields))
