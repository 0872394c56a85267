"""Model -> artifact: a SavedModel that needs no code of ours, the Keras file, `model.json` and a model card."""

import datetime
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import artifact, cam, model_card
from trainer import model as model_lib
from trainer.artifact import Artifact
from trainer.calibration import OperatingPoint
from trainer.input_pipeline import Split


def serving_function(model: keras.Model, temperature: float) -> tf.types.experimental.GenericFunction:
    """The function that the artifact serves.

    Args:
      model: of `model.build`, in float32.
      temperature: divisor of the logit before the sigmoid.

    Returns:
      `image` uint8 [B, size, size, 1] -> `probability` [B] (calibrated), `logit` [B], `cam` [B, h, w], all float32.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(image, training=False)
        logit = tf.squeeze(outputs[model_lib.LOGIT], -1)
        return {"probability": tf.sigmoid(logit / temperature), "logit": logit, "cam": cam.grad_cam(model, outputs)}

    return serve


def export(
    model: keras.Model,
    architecture: model_lib.Architecture,
    directory: str,
    *,
    operating_point: OperatingPoint,
    train: Split,
    validation: Split,
    dataset: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Artifact:
    """Writes the artifact whole or not at all: into a temporary folder first, then under its name, local or in a bucket.

    Args:
      model: trained; its weights are copied into a plain float32 model, whatever strategy and precision it was trained under.
      directory: replaced where it exists.
      operating_point: fitted on the validation split.
      train, validation: for the scale of the maps and the histograms that later drift is measured against.
      dataset: metadata of the prepared data.
      metrics: as in `metrics.json`.
    """
    size = model.input_shape[1]
    plain = _plain_copy(model)
    serve = serving_function(plain, operating_point.temperature)
    maps, probabilities = _maps_and_probabilities(serve, validation if len(validation) else train)
    fields: dict[str, Any] = {
        "image_size": size,
        "preprocessing": dataset["preprocessing"],
        "threshold": operating_point.threshold,
        "temperature": operating_point.temperature,
        "uncertain_band": operating_point.uncertain_band,
        "cam": {"layer": model_lib.FEATURES, "height": maps.shape[1], "width": maps.shape[2], "scale": _map_scale(maps)},
        "architecture": {
            "backbone": architecture.backbone,
            "pooling": architecture.pooling,
            "head_widths": list(architecture.head_widths),
            "dropout": architecture.dropout,
            "threshold_rule": operating_point.rule,
        },
        "dataset": {key: dataset[key] for key in dataset if key != "preprocessing"},
        "metrics": metrics,
        "reference": _reference(train, probabilities),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "artifact"
        archive = keras.export.ExportArchive()
        archive.track(plain)
        archive.add_endpoint("serving_default", serve)
        archive.write_out(str(local), verbose=False)
        plain.save(local / artifact.KERAS_FILE)
        (local / artifact.MODEL_CARD).write_text(model_card.render(fields), encoding="utf-8")
        sealed = artifact.seal(local, **fields)
        _publish(local, directory)
    return sealed


def _plain_copy(model: keras.Model) -> keras.Model:
    """A float32 copy of the graph as it stands: built anew, EfficientNet would lack the layer that Keras adds to it for
    ImageNet's weights."""

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.dtype_policy.name.startswith("mixed"):
            settings["dtype"] = "float32"
        return layer.__class__.from_config(settings)

    plain = keras.models.clone_model(model, clone_function=in_float32)
    plain.set_weights(model.get_weights())
    return plain


def _maps_and_probabilities(serve: Any, split: Split, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    starts = range(0, len(split), batch_size)
    outputs = [serve(tf.constant(split.images[start : start + batch_size])) for start in starts]
    return np.concatenate([o["cam"].numpy() for o in outputs]), np.concatenate([o["probability"].numpy() for o in outputs])


def _map_scale(maps: np.ndarray) -> float:
    """The value drawn at full colour: one positive cell in a hundred lies above it, so that few maps saturate."""
    positive = maps[maps > 0]
    return float(np.quantile(positive, 0.99)) if positive.size else 1.0


def _reference(train: Split, probabilities: np.ndarray) -> dict[str, Any]:
    """Histograms, as shares, of what is normal for this model: probability, and mean grey level of the letterboxed square."""
    brightness = np.array([image.mean() for image in train.images])
    shares = {}
    for name, values, high in (("probability", probabilities, 1.0), ("brightness", brightness, 255.0)):
        counts, edges = np.histogram(values, bins=10, range=(0.0, high))
        shares[name] = {"edges": edges.tolist(), "shares": (counts / max(1, counts.sum())).tolist()}
    return shares


def _publish(local: Path, directory: str) -> None:
    """Moves a finished folder to its name; in a bucket, `model.json` goes last and so marks the rest as complete."""
    if "://" not in directory:
        target = Path(directory)
        staged = target.with_name(f".{target.name}.partial")
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(local, staged)
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)
        return
    files = sorted((path for path in local.rglob("*") if path.is_file()), key=lambda path: path.name == artifact.MODEL_JSON)
    for path in files:
        name = f"{directory.rstrip('/')}/{path.relative_to(local).as_posix()}"
        tf.io.gfile.makedirs(name.rsplit("/", 1)[0])
        tf.io.gfile.copy(str(path), name, overwrite=True)
