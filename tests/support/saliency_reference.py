"""Compute the maps of a small network with other libraries. This script writes them to a file
beside it; tests compare with that.

    pip install --target=/somewhere tf-keras-vis==0.8.7 deprecated grad-cam==1.5.7 captum==0.9.0
      torch torchvision; rm -r /somewhere/tests
    for backend in tensorflow torch; do KERAS_BACKEND=$backend PYTHONPATH=.:/somewhere python -m
      tests.support.saliency_reference; done

They are no dependencies of the tests: PyTorch weighs gigabytes, and the wheel of tf-keras-vis
installs a top-level package named `tests`, which would hide this one.
"""

import functools
import json
import pathlib
from typing import Any

import keras
import numpy as np

FILE = pathlib.Path(__file__).with_suffix(".json")
LAYERS = ("conv0", "conv1", "conv2")
SIZE, OCCLUSION_CELLS = 16, 8

Answers = dict[str, dict[str, np.ndarray]]
"""By method and layer, [2, h, w]."""


def network() -> keras.Model:
    """Three convolutions and a head of two layers, in float32, which tf-keras-vis asks for; weights
    of a seed.
    """
    image = x = keras.Input((SIZE, SIZE, 1))
    for i, width in enumerate((4, 6, 6)):
        x = keras.layers.Conv2D(
            width, 3, strides=2 if i else 1, padding="same", activation="relu", name=f"conv{i}"
        )(x)
    hidden = keras.layers.Dense(5, activation="relu")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"logit": keras.layers.Dense(1)(hidden)})
    random = np.random.default_rng(5)
    model.set_weights([random.normal(0.1, 0.5, weight.shape) for weight in model.get_weights()])
    return model


def pictures() -> np.ndarray:
    """float32 [2, 16, 16, 1] in [0, 1]."""
    return np.random.default_rng(6).random((2, SIZE, SIZE, 1)).astype(np.float32)


def main() -> None:
    answers = (
        of_tf_keras_vis()
        if keras.backend.backend() == "tensorflow"
        else {**of_grad_cam(), **of_captum()}
    )
    rounded = {
        method: {
            layer: np.asarray(maps, float).round(6).tolist() for layer, maps in by_layer.items()
        }
        for method, by_layer in answers.items()
    }
    FILE.write_text(json.dumps({**json.loads(FILE.read_text()), **rounded}) + "\n")


def of_tf_keras_vis() -> Answers:
    """Without the sign, which it throws away."""
    from tf_keras_vis import gradcam, gradcam_plus_plus, layercam

    methods = {
        "grad_cam": gradcam.Gradcam,
        "grad_cam_pp": gradcam_plus_plus.GradcamPlusPlus,
        "layer_cam": layercam.Layercam,
    }
    model = network()
    plain = keras.Model(model.input, model.output["logit"])
    options = {"expand_cam": False, "normalize_cam": False}
    return {
        method: {
            layer: theirs(plain)(lambda o: o[:, 0], pictures(), penultimate_layer=layer, **options)
            for layer in LAYERS
        }
        for method, theirs in methods.items()
    }


def of_grad_cam() -> Answers:
    """Taken before the library stretches each map to [0, 1] and to the image's size."""
    import pytorch_grad_cam
    import torch

    # It stretches channels corner to corner; the authors' own program of Score-CAM does it side to
    # side.
    torch.nn.UpsamplingBilinear2d = functools.partial(
        torch.nn.Upsample, mode="bilinear", align_corners=False
    )

    def ask(method: type, layer: str) -> np.ndarray:
        found = []

        class Kept(method):
            def get_cam_image(self, *arguments: Any) -> np.ndarray:
                found.append(super().get_cam_image(*arguments))
                return found[-1]

        model, images = _in_torch()
        theirs = Kept(
            model,
            [model.keras.get_layer(layer)],
            reshape_transform=lambda answers: answers.permute(0, 3, 1, 2),
        )
        theirs(images, [lambda logit: logit[0]] * len(images))
        return found[0]

    methods = {"hires_cam": pytorch_grad_cam.HiResCAM, "score_cam": pytorch_grad_cam.ScoreCAM}
    return {
        method: {layer: ask(theirs, layer) for layer in LAYERS}
        for method, theirs in methods.items()
    }


def of_captum() -> Answers:
    """Of no layer. By pixels, of which those of a cell are alike."""
    from captum.attr import Occlusion

    model, images = _in_torch()
    cell = SIZE // OCCLUSION_CELLS
    grey = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images)
    fall = Occlusion(model).attribute(
        images, (1, 2 * cell, 2 * cell), (1, cell, cell), baselines=grey, target=0
    )
    return {"occlusion": {"": fall[:, 0, ::cell, ::cell].detach().numpy()}}


def _in_torch() -> tuple[Any, Any]:
    """Return the network as a module with channels first, as those libraries expect, and the
    pictures likewise.
    """
    import torch

    class ChannelsFirst(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keras = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.keras(images.permute(0, 2, 3, 1))["logit"]

    return ChannelsFirst(), torch.tensor(pictures()).permute(0, 3, 1, 2)


if __name__ == "__main__":
    main()
