"""Export DenseNet121 with random weights: as fast as a trained one, without a download.

    python -m benchmarks.random_artifact ARTIFACT SIZE [RADIOGRAPHS]

Batch normalisation gets the statistics of the network's own activations, so that numbers stay in a
sensible range layer by layer.
"""

import pathlib
import sys

import keras
import numpy as np

from benchmarks import score
from trainer import radiograph
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepared_split import Split
from trainer.evaluation.calibration import OperatingPoint
from trainer.model_json.scaling import Scaling
from trainer.network import model as model_lib
from trainer.network.model import Architecture
from trainer.network.serving import Member, Network
from trainer.publishing import export
from trainer.publishing.trained import EvaluationResult, ScoredSplit, TrainingResult


def main(directory: str, size: str, source: str | None = None) -> None:
    side = int(size)
    pictures = score.pictures(pathlib.Path(source) if source else None)
    images = np.stack([radiograph.letterbox(pixels, side) for pixels in pictures])
    architecture = Architecture("densenet121", "avg", ())
    model = model_lib.build(architecture, side)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images[:32], training=True)
    labels = np.arange(len(images)) % 2
    names = np.array([str(i) for i in range(len(images))])
    split = Split("validation", images, labels, names, names, names, ({},) * len(images))
    counts = {name: len(images) for name in ("images", "studies", "patients")}
    dataset = DatasetInfo(
        image_size=side,
        preprocessing=radiograph.PREPROCESSING,
        fingerprint="random weights",
        layout="folders",
        simulated=source is None,
        splits={"train": {**counts, "positives": 0}},
    )
    network = Network((Member(model, architecture),))
    trained = TrainingResult(
        network, train=split, held_out=ScoredSplit(split, np.zeros(len(images)))
    )
    point = OperatingPoint(Scaling(), threshold=0.5, rule="kappa")
    export.export(trained, EvaluationResult(point, {}), dataset, directory, verify_engines=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
