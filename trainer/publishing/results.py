"""Write what a finished run leaves: operating point, metrics, artifact, report and curves.

`metrics.json` is written last and marks the run as finished.
"""

import dataclasses
import datetime
import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from trainer import machine, radiograph, storage
from trainer.artifact import Artifact
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepared_split import Split
from trainer.drawing import overlay
from trainer.evaluation import calibration, evaluate, figures
from trainer.evaluation.cases import Cases
from trainer.inference import engine_records
from trainer.network.model import RANDOM_WEIGHTS
from trainer.network.serving import Network
from trainer.publishing import explain, export, model_card, report
from trainer.publishing.trained import EvaluationResult, ScoredSplit, TrainingResult

METRICS = "metrics.json"
SETTINGS = "config.json"
CURVES = "curves.png"
_MOST_EXAMPLES = 8
_LINKS = (
    ("artifact", "artifact/"),
    ("model card", "artifact/MODEL_CARD.md"),
    ("model.json", "artifact/model.json"),
    ("metrics.json", METRICS),
    ("history.csv", "history.csv"),
    ("TensorBoard's logs", "tensorboard/"),
)
"""What the report of a run links to, beside it."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """Everything that the results of a run are made of.

    Attributes:
      workdir: folder of the run, local or in a bucket.
      threshold_rule: see `calibration.check_rule`.
      abstain: largest share, in [0, 1), of the held-out images that may be called uncertain.
      verify_engines, cam_methods: as `export.export` takes them.
      trained: the network that is exported, and its images.
      held_out_name: `validation`, or `out_of_fold` for the images of a cross-validation, each
        scored by the network that has not seen it.
      test: the test split, scored.
      history: one row per epoch.
      settings: every setting by its name, for the report.
      folds: a row for each fold of a cross-validation, for report and metrics.
    """

    workdir: str
    dataset: DatasetInfo
    threshold_rule: str
    abstain: float
    verify_engines: bool
    cam_methods: tuple[str, ...]
    trained: TrainingResult
    held_out_name: str
    test: ScoredSplit
    history: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]
    folds: Sequence[Mapping[str, Any]] = ()

    def select_scored_splits(self) -> dict[str, ScoredSplit]:
        """Return the scored images by the names that metrics and report use."""
        return {"test": self.test, self.held_out_name: self.trained.held_out}


def publish(run: FinishedRun) -> dict[str, Any]:
    """Write artifact, report, curves and `metrics.json`; return the content of the last."""
    artifact, measured = export_with_metrics(run, f"{run.workdir}/artifact")
    page = report.render(_describe_run(run, artifact, measured))
    storage.write_text(f"{run.workdir}/{report.REPORT}", page)
    curves = figures.render_png(figures.draw_curves(run.history))
    storage.write_bytes(f"{run.workdir}/{CURVES}", curves)
    metrics = dict(measured.metrics) | ({"folds": list(run.folds)} if run.folds else {})
    storage.write_text(f"{run.workdir}/{METRICS}", json.dumps(metrics, indent=2) + "\n")
    return metrics


def export_with_metrics(run: FinishedRun, directory: str) -> tuple[Artifact, EvaluationResult]:
    """Fit the operating point, measure, and write the artifact to `directory`."""
    point = calibration.fit(run.trained.held_out.compute_cases(), run.threshold_rule, run.abstain)
    metrics = {
        name: evaluate.measure(scored.split, scored.logit, point)
        for name, scored in run.select_scored_splits().items()
    }
    measured = EvaluationResult(point, metrics)
    artifact = export.export(
        run.trained,
        measured,
        run.dataset,
        directory,
        run.test.split,
        verify_engines=run.verify_engines,
        cam_methods=run.cam_methods,
    )
    return artifact, measured


def _describe_run(
    run: FinishedRun, artifact: Artifact, measured: EvaluationResult
) -> report.RunReport:
    """Return what the report shows."""
    point, scored = measured.operating_point, run.select_scored_splits()
    cases = {name: found.compute_cases(point.scaling) for name, found in scored.items()}
    shown = "test" if len(run.test.split) else run.held_out_name
    split, folder = scored[shown].split, run.workdir.rstrip("/").rpartition("/")[2]
    return report.RunReport(
        title=f"{_name_network(run.trained.network)} in {folder}/",
        dataset=run.dataset,
        operating_point=point,
        cases=cases,
        metrics=measured.metrics,
        history=run.history,
        settings=run.settings,
        environment=_describe_environment(run, artifact),
        slices=evaluate.evaluate_by_attribute(split, cases[shown], point.threshold)
        if len(split)
        else {},
        examples=_draw_errors(split, cases[shown], artifact, f"{run.workdir}/artifact"),
        colours=explain.list_colours(),
        full_colour=f"{artifact.cam['scale']:.3g} logits per cell",
        map_checks=artifact.map_checks,
        links=_LINKS,
        folds=run.folds,
    )


def _name_network(network: Network) -> str:
    """Return the name of the backbone, with the number of networks where there are several."""
    members = len(network.members)
    return network.backbones if members == 1 else f"{members} x {network.backbones}"


def _draw_errors(
    split: Split, cases: Cases, artifact: Artifact, directory: str
) -> list[report.MisclassifiedImage]:
    """Draw the most confident errors."""
    worst = rank_errors(cases, artifact.threshold)[:_MOST_EXAMPLES]
    if not len(worst):
        return []
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    maps = serve(image=tf.constant(split.images[worst]))["cam"].numpy()
    examples = []
    for index, cam in zip(worst, maps, strict=True):
        picture = overlay.draw(
            _crop_border(split.images[index][..., 0], split.attributes[index]),
            cam,
            artifact.image_size,
            artifact.cam["scale"],
            "overlay",
        )
        probability, is_positive = float(cases.probability[index]), bool(cases.label[index])
        names = ("negative", "positive")
        example = report.MisclassifiedImage(
            str(split.path[index]),
            called=names[probability >= artifact.threshold],
            truth=names[is_positive],
            probability=probability,
            png=overlay.encode(picture, "png"),
        )
        examples.append(example)
    return examples


def _crop_border(square: np.ndarray, attributes: Mapping[str, str]) -> np.ndarray:
    """Return the picture in a letterbox square, uint8 [height, width], without the black border."""
    height, width = int(attributes["source_height"]), int(attributes["source_width"])
    place = radiograph.placement(height, width, len(square))
    return square[place.top : place.top + place.height, place.left : place.left + place.width]


def rank_errors(cases: Cases, threshold: float) -> np.ndarray:
    """Return the indices, int [M], of the wrong calls, the most confident in logits first."""
    wrong = np.flatnonzero((cases.probability >= threshold) != cases.label)
    probability = cases.probability[wrong].clip(1e-9, 1 - 1e-9)
    distance = scipy.special.logit(probability) - scipy.special.logit(threshold)
    return wrong[np.argsort(-np.abs(distance), kind="stable")]


def _describe_environment(run: FinishedRun, artifact: Artifact) -> dict[str, str]:
    """Return what was trained, when, how and where: command, devices and versions, by name."""
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    names = {
        tf.config.experimental.get_device_details(d).get("device_name", d.device_type)
        for d in devices
    }
    origin, parameters = run.trained.origin, run.trained.network.members[0].model.count_params()
    weights = origin.weights if origin else "unknown"
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds"),
        "command": shlex.join([sys.argv[0].rpartition("/")[2], *sys.argv[1:]]),
        "run folder": run.workdir,
        "network that was trained": f"{_name_network(run.trained.network)}, {parameters:,} "
        f"parameters, from {'random' if weights == RANDOM_WEIGHTS else weights} weights",
        "TensorBoard": f"tensorboard --logdir={shlex.quote(run.workdir)}/tensorboard",
        "devices": f"{len(devices)} x {', '.join(sorted(names))}",
        "processor": f"{machine.processor()}, cores: {machine.cores()}",
        "scoring": engine_records.explain_fastest(artifact.engines),
        "flipped copies": model_card.describe_flips(artifact.architecture),
        "duration": _format_duration(run.workdir),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "platform": platform.platform(),
    }


def _format_duration(workdir: str) -> str:
    """Return the time since the settings of the run were written, before its first step."""
    path = f"{workdir}/{SETTINGS}"
    if not storage.exists(path):
        return "unknown"
    minutes = (time.time() - storage.read_time_modified(path)) / 60
    return f"{minutes:.1f} minutes, interruptions included"
