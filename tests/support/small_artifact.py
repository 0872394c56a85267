"""Export a complete artifact, Keras files included, of a network of three convolutions."""

import pathlib

import keras
import numpy as np

from tests.support import small_run, tiny_net  # noqa: F401 (makes the backbone known)
from trainer import radiograph
from trainer.artifact import Artifact
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepared_split import Split
from trainer.evaluation.calibration import OperatingPoint
from trainer.model_json.scaling import Scaling
from trainer.network import model as model_lib
from trainer.network.serving import Member, Network
from trainer.publishing import export
from trainer.publishing.trained import EvaluationResult, ScoredSplit, TrainingResult

ARCHITECTURE = model_lib.Architecture("tinynet", "avg", ())


def network(members: int = 1, size: int = 48) -> Network:
    """Of random weights, each member with a temperature of its own."""
    models = [model_lib.build(ARCHITECTURE, size, seed=i + 1) for i in range(members)]
    return Network(
        tuple(Member(model, ARCHITECTURE, 1.0 + 0.5 * i) for i, model in enumerate(models))
    )


def make(
    directory: pathlib.Path,
    built: Network,
    size: int = 48,
    simulated: bool = False,
    split: Split | None = None,
    cam_methods: tuple[str, ...] = (),
) -> Artifact:
    """Export `built` unchanged; `split` serves as training data and as held-out data."""
    split = split or small_run.split(8, size)
    point = OperatingPoint(Scaling(), threshold=0.5, rule="kappa")
    logit = built.members[0].model(split.images)["logit"].numpy()[:, 0]
    dataset = DatasetInfo(
        image_size=size,
        preprocessing=radiograph.PREPROCESSING,
        fingerprint="abc",
        simulated=simulated,
    )
    trained = TrainingResult(built, train=split, held_out=ScoredSplit(split, logit))
    measured = EvaluationResult(point, {})
    return export.export(trained, measured, dataset, str(directory), cam_methods=cam_methods)


def shuffle_head(model: keras.Model, seed: int = 0) -> None:
    """Permute the weights of the head's last layer, so that the network no longer uses its
    features.
    """
    layer = model_lib.head_layers(model)[-1]
    kernel, bias = layer.get_weights()
    layer.set_weights([np.random.default_rng(seed).permutation(kernel), bias])
