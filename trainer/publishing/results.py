"""What a finished run leaves: operating point, metrics, artifact, report, curves; `metrics.json` last, as the mark of the end."""

import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import scipy.special
import tensorflow as tf

from trainer import engines, machine, overlay, storage
from trainer.artifact import Artifact
from trainer.dataset.input_pipeline import Split
from trainer.evaluation import calibration, evaluate
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import Cases
from trainer.network.serving import Network
from trainer.publishing import export, report
from trainer.storage import write_bytes, write_text

METRICS = "metrics.json"
SETTINGS = "config.json"
CURVES = "curves.png"


@dataclasses.dataclass(frozen=True)
class Scored:
    """A split with what the trained network says of it: `logit` float [N]."""

    split: Split
    logit: np.ndarray

    def cases(self, temperature: float = 1.0) -> Cases:
        """With probability = sigmoid(logit / temperature)."""
        return evaluate.make_cases(self.split, self.logit, temperature)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training ended with.

    Attributes:
      network: the weights to export.
      train: the images that they were fitted to.
      held_out: images that they were not fitted to, scored: what the operating point is fitted on.
      held_out_name: `validation`, or `out_of_fold` for the images of folds, each scored by the network that didn't see it.
      test: the test split, scored.
      history: one row per epoch.
    """

    network: Network
    train: Split
    held_out: Scored
    held_out_name: str
    test: Scored
    history: Sequence[Mapping[str, float]]

    def scored(self) -> dict[str, Scored]:
        """By the name that metrics and report use."""
        return {"test": self.test, self.held_out_name: self.held_out}


def export_with_metrics(
    directory: str, config: ml_collections.ConfigDict, dataset: Mapping[str, Any], trained: Trained
) -> tuple[Artifact, OperatingPoint, dict[str, Any]]:
    """Fits the operating point, measures, and writes the artifact; returns all three."""
    point = calibration.fit(trained.held_out.cases(), config.threshold_rule, config.abstain)
    metrics = {
        name: evaluate.measure(scored.split, scored.logit, point)
        for name, scored in trained.scored().items()
    }
    artifact = export.export(
        trained.network,
        directory,
        operating_point=point,
        train=trained.train,
        held_out=trained.held_out.split,
        held_out_logit=trained.held_out.logit,
        dataset=dataset,
        metrics=metrics,
        origin=_origin(config, trained.network),
        verify_engines=config.verify_engines,
        cam_methods=export.methods(config.cam_methods),
    )
    return artifact, point, metrics


def _origin(config: ml_collections.ConfigDict, network: Network) -> dict[str, Any]:
    """Where the weights came from: the recipe's name, where there is one, what training started from, and the seed."""
    fell_back = network.architecture.backbone != config.backbone
    weights = (
        "none" if fell_back else pathlib.PurePosixPath(config.weights).name
    )  # whose folder is nobody else's business
    return {"recipe": config.get("recipe", ""), "weights": weights, "seed": config.seed}


def publish(
    workdir: str,
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    trained: Trained,
    folds: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Writes artifact, report, curves and `metrics.json`; returns the content of the last.

    Args:
      dataset: metadata of the prepared data.
      folds: a row for each fold of a cross-validation, for report and metrics.
    """
    artifact, point, metrics = export_with_metrics(f"{workdir}/artifact", config, dataset, trained)
    cases = {name: scored.cases(point.temperature) for name, scored in trained.scored().items()}
    drawn = "test" if len(trained.test.split) else trained.held_out_name
    split = trained.scored()[drawn].split
    run_report = report.RunReport(
        title=f"{_description(trained.network)} in {workdir.rstrip('/').rpartition('/')[2]}/",
        dataset=dataset,
        operating_point=point,
        cases=cases,
        metrics=metrics,
        history=trained.history,
        config=config.to_dict(),
        environment=_environment(workdir),
        slices=evaluate.evaluate_by_attribute(split, cases[drawn], point.threshold)
        if len(split)
        else {},
        examples=_confident_errors(split, cases[drawn], artifact, f"{workdir}/artifact"),
        folds=folds,
    )
    report.write(workdir, run_report)
    write_bytes(f"{workdir}/{CURVES}", report.curves_png(trained.history))
    told = metrics | {"folds": list(folds)} if folds else metrics
    write_text(f"{workdir}/{METRICS}", json.dumps(told, indent=2) + "\n")
    return told


def _description(network: Network) -> str:
    members = len(network.members)
    return (
        network.architecture.backbone
        if members == 1
        else f"{members} x {network.architecture.backbone}"
    )


def _confident_errors(
    split: Split, cases: Cases, artifact: Artifact, directory: str, most: int = 8
) -> list[tuple[str, bytes]]:
    """The images that the model was surest and wrong about, each with a caption and its overlay as PNG."""
    worst = _surest_and_wrong(cases, artifact.threshold)[:most]
    if not len(worst):
        return []
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    maps = serve(image=tf.constant(split.images[worst]))["cam"].numpy()
    examples = []
    for index, cam in zip(worst, maps, strict=True):
        picture = overlay.draw(
            split.images[index][..., 0], cam, artifact.image_size, artifact.cam["scale"], "overlay"
        )
        label = "positive" if cases.label[index] else "negative"
        caption = f"{split.path[index]}: {label}, probability {cases.probability[index]:.2f}"
        examples.append((caption, overlay.encode(picture, "png")))
    return examples


def _surest_and_wrong(cases: Cases, threshold: float) -> np.ndarray:
    """Indices of the wrong calls, those farthest from the threshold in logits first."""
    wrong = np.flatnonzero((cases.probability >= threshold) != cases.label)
    odds = scipy.special.logit(cases.probability[wrong].clip(1e-9, 1 - 1e-9)) - scipy.special.logit(
        threshold
    )
    return wrong[np.argsort(-np.abs(odds), kind="stable")]


def _environment(workdir: str) -> dict[str, str]:
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    names = {
        tf.config.experimental.get_device_details(d).get("device_name", d.device_type)
        for d in devices
    }
    return {
        "devices": f"{len(devices)} x {', '.join(sorted(names))}",
        "processor": f"{engines.processor()}, cores: {machine.cores()}",
        "duration": _duration(workdir),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "platform": platform.platform(),
    }


def _duration(workdir: str) -> str:
    """Since the settings of the run were written, before its first step."""
    path = f"{workdir}/{SETTINGS}"
    if not storage.exists(path):
        return "unknown"
    return f"{(time.time() - storage.modified(path)) / 60:.1f} minutes, interruptions included"
