"""What tf-keras-vis 0.8.7 says of a small network: written by this script, kept beside it, and compared with by the tests.

    pip install --no-deps --target=/somewhere tf-keras-vis deprecated; rm -r /somewhere/tests
    PYTHONPATH=.:/somewhere python -m tests.support.saliency_reference

It is no dependency of the tests because its wheel installs a top-level package named `tests`, which would hide this one.
"""

import json
import pathlib

import keras
import numpy as np

FILE = pathlib.Path(__file__).with_suffix(".json")
LAYERS = ("conv0", "conv1", "conv2")


def network() -> keras.Model:
    """Three convolutions and a head of two layers, in float32, which tf-keras-vis asks for; weights of a seed."""
    image = x = keras.Input((16, 16, 1))
    for i, width in enumerate((4, 6, 6)):
        x = keras.layers.Conv2D(width, 3, strides=2 if i else 1, padding="same", activation="relu", name=f"conv{i}")(x)
    hidden = keras.layers.Dense(5, activation="relu")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"logit": keras.layers.Dense(1)(hidden)})
    random = np.random.default_rng(5)
    model.set_weights([random.normal(0.1, 0.5, weight.shape) for weight in model.get_weights()])
    return model


def pictures() -> np.ndarray:
    """float32 [2, 16, 16, 1] in [0, 1]."""
    return np.random.default_rng(6).random((2, 16, 16, 1)).astype(np.float32)


def main() -> None:
    from tf_keras_vis import gradcam, gradcam_plus_plus, layercam

    methods = {
        "grad_cam": gradcam.Gradcam,
        "grad_cam_pp": gradcam_plus_plus.GradcamPlusPlus,
        "layer_cam": layercam.Layercam,
    }
    model = network()
    plain = keras.Model(model.input, model.output["logit"])
    options = {"expand_cam": False, "normalize_cam": False}
    answers = {
        method: {
            layer: np.asarray(theirs(plain)(lambda o: o[:, 0], pictures(), penultimate_layer=layer, **options))
            .round(6)
            .tolist()
            for layer in LAYERS
        }
        for method, theirs in methods.items()
    }
    FILE.write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
