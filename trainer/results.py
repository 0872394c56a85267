"""What a finished run leaves: operating point, metrics, artifact, report, curves; `metrics.json` last, as the mark of the end."""

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import scipy.special
import tensorflow as tf

from trainer import calibration, evaluate, export, overlay, report
from trainer.artifact import Artifact
from trainer.cases import Cases
from trainer.checkpoints import write_bytes, write_text
from trainer.input_pipeline import Split
from trainer.model import Architecture

METRICS = "metrics.json"
CURVES = "curves.png"


def publish(
    workdir: str,
    config: ml_collections.ConfigDict,
    dataset: Mapping[str, Any],
    model: keras.Model,
    architecture: Architecture,
    train: Split,
    scored: Mapping[str, tuple[Split, np.ndarray]],
    history: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Writes everything and returns the content of `metrics.json`.

    Args:
      dataset: metadata of the prepared data.
      model: with the weights to export.
      scored: the splits `test` and `validation`, each with its logits, float32 [N].
      history: one row per epoch.
    """
    validation, validation_logit = scored["validation"]
    point = calibration.fit(evaluate.cases(validation, validation_logit), config.threshold_rule, config.abstain)
    metrics = {name: evaluate.measure(split, logit, point) for name, (split, logit) in scored.items()}
    artifact = export.export(
        model,
        architecture,
        f"{workdir}/artifact",
        operating_point=point,
        train=train,
        validation=validation,
        dataset=dataset,
        metrics=metrics,
    )
    test = scored["test"][0]
    cases = {name: evaluate.cases(split, logit, point.temperature) for name, (split, logit) in scored.items()}
    run_report = report.RunReport(
        title=f"{architecture.backbone} in {workdir.rstrip('/').rpartition('/')[2]}/",
        dataset=dataset,
        operating_point=point,
        cases=cases,
        metrics=metrics,
        history=history,
        config=config.to_dict(),
        environment=_environment(),
        slices=evaluate.by_attribute(test, cases["test"], point.threshold) if len(test) else {},
        examples=_confident_errors(test, cases["test"], artifact, f"{workdir}/artifact") if len(test) else (),
    )
    report.write(workdir, run_report)
    write_bytes(f"{workdir}/{CURVES}", report.curves_png(history))
    write_text(f"{workdir}/{METRICS}", json.dumps(metrics, indent=2) + "\n")
    return metrics


def _confident_errors(split: Split, cases: Cases, artifact: Artifact, directory: str, most: int = 8) -> list[tuple[str, bytes]]:
    """The images that the model was surest and wrong about, each with a caption and its overlay as PNG."""
    wrong = np.flatnonzero((cases.probability >= artifact.threshold) != cases.label)
    worst = wrong[np.argsort(-np.abs(scipy.special.logit(cases.probability[wrong].clip(1e-9, 1 - 1e-9))), kind="stable")][:most]
    if not len(worst):
        return []
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    maps = serve(image=tf.constant(split.images[worst]))["cam"].numpy()
    examples = []
    for index, cam in zip(worst, maps, strict=True):
        picture = overlay.draw(split.images[index, ..., 0], cam, artifact.image_size, artifact.cam["scale"], "overlay")
        label = "positive" if cases.label[index] else "negative"
        caption = f"{split.path[index]}: {label}, probability {cases.probability[index]:.2f}"
        examples.append((caption, overlay.encode(picture, "png")))
    return examples


def _environment() -> dict[str, str]:
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    names = {tf.config.experimental.get_device_details(d).get("device_name", d.device_type) for d in devices}
    return {
        "devices": f"{len(devices)} x {', '.join(sorted(names))}",
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "platform": platform.platform(),
    }
