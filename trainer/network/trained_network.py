"""Load an artifact's Keras files, which have the layers and gradients that its SavedModel lacks."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.artifact import Artifact, ArtifactError, list_keras_files
from trainer.network import cam, flips, saliency
from trainer.network import model as model_lib
from trainer.network.serving import Member, Network


def load(folder: str | os.PathLike[str], info: Artifact) -> Network:
    """Load the network of a local artifact, each member with its temperature.

    Raises:
      ArtifactError: a Keras file is missing or of another version.
    """
    architecture = info.architecture
    count = int(architecture.get("members", 1))
    temperatures = architecture.get("temperatures", [1.0] * count)
    built = architecture.get("networks", [architecture] * count)
    members = tuple(
        Member(_load_model(pathlib.Path(folder, name)), _read_architecture(network), t)
        for name, network, t in zip(list_keras_files(count), built, temperatures, strict=True)
    )
    return Network(members, flips.read(architecture))


def _read_architecture(built: Mapping[str, Any]) -> model_lib.Architecture:
    return model_lib.Architecture(
        built["backbone"],
        built["pooling"],
        tuple(built["head_widths"]),
        built.get("dropout", 0.0),
    )


def compute_maps(network: Network, method: str, images: np.ndarray, layer: str) -> np.ndarray:
    """Compute maps by a method of `saliency.METHODS`, float32 [B, h, w].

    They are the mean over the members, each divided by its temperature. Of an artifact that also
    scores flipped copies, only the image itself is explained.
    """
    compute = saliency.METHODS[method]
    maps = [
        tf.constant(compute(member.model, images, layer) / member.temperature, tf.float32)
        for member in network.members
    ]
    return cam.average(maps).numpy()


def _load_model(path: pathlib.Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a Keras model ({str(error).splitlines()[0][:200]});"
            " export it again"
        ) from error
