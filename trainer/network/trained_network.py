"""An artifact's Keras files as a network again: for whoever needs layers and gradients, which the SavedModel no longer has."""

import keras
import numpy as np

from trainer import storage
from trainer.artifact import KERAS_FILE, Artifact, ArtifactError
from trainer.network import model as model_lib
from trainer.network import saliency
from trainer.network.serving import Member, Network


def load(directory: str, info: Artifact) -> Network:
    """The network of an artifact, local or in a bucket, each member with its temperature.

    Raises:
      ArtifactError: a Keras file is missing or of another version.
    """
    architecture = info.architecture
    count = int(architecture.get("members", 1))
    stem, _, suffix = KERAS_FILE.partition(".")
    names = [KERAS_FILE] if count == 1 else [f"{stem}-{i + 1}.{suffix}" for i in range(count)]
    temperatures = architecture.get("temperatures", [1.0] * count)
    members = tuple(
        Member(_load(f"{directory.rstrip('/')}/{name}"), t)
        for name, t in zip(names, temperatures, strict=True)
    )
    built = model_lib.Architecture(
        architecture["backbone"],
        architecture["pooling"],
        tuple(architecture["head_widths"]),
        architecture.get("dropout", 0.0),
    )
    return Network(built, members, bool(architecture.get("mirrored", False)))


def maps(network: Network, method: str, images: np.ndarray, layer: str) -> np.ndarray:
    """A map of `saliency.METHODS`, float32 [B, h, w]: the mean over the members, each divided by its temperature.

    An artifact that looks at mirror images too is explained by what it sees in the image itself.
    """
    ask = saliency.METHODS[method]
    return np.mean(
        [ask(member.model, images, layer) / member.temperature for member in network.members],
        axis=0,
    )


def _load(path: str) -> keras.Model:
    with storage.local_file(path) as local:
        try:
            return keras.models.load_model(local, compile=False)
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path} cannot be read as a Keras model ({str(error).splitlines()[0][:200]}); export again"
            ) from error
