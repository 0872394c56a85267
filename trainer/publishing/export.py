"""Model -> artifact: a SavedModel that needs no code of ours, the Keras file, `model.json` and a model card."""

import dataclasses
import datetime
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from absl import logging

from trainer import artifact, storage
from trainer.artifact import Artifact
from trainer.dataset.input_pipeline import Split
from trainer.errors import ConfigError
from trainer.evaluation import map_checks
from trainer.evaluation.calibration import OperatingPoint
from trainer.network import model as model_lib
from trainer.network import saliency
from trainer.network.serving import Member, Network, serving_function
from trainer.publishing import model_card, verify

_SAMPLE = 256
"""Images that the scale of the maps is taken from; their cells are many times more."""


def export(
    network: Network,
    directory: str,
    *,
    operating_point: OperatingPoint,
    train: Split,
    held_out: Split,
    held_out_logit: np.ndarray,
    dataset: Mapping[str, Any],
    metrics: Mapping[str, Any],
    origin: Mapping[str, Any] | None = None,
    verify_engines: bool = False,
    cam_methods: Sequence[str] = (),
) -> Artifact:
    """Writes the artifact whole or not at all: into a temporary folder first, then under its name, local or in a bucket.

    Args:
      network: trained; its weights are copied into plain float32 models, whatever strategy and precision they were trained under.
      directory: replaced where it exists.
      operating_point: fitted on `held_out`.
      train: for the histogram of brightness.
      held_out: images that the weights were not fitted to, for the scale of the maps; `train` stands in where there are none.
      held_out_logit: float [N], for the histogram of probabilities that later drift is measured against.
      dataset: metadata of the prepared data.
      metrics: as in `metrics.json`.
      origin: `recipe`, `weights` and `seed` of the run, for the record.
      verify_engines: whether to measure what scores faster than TensorFlow, so that a scorer may choose it.
      cam_methods: of `saliency.EXPORTED`; each becomes a signature of the SavedModel that differs in its map.
    """
    plain = dataclasses.replace(
        network, members=tuple(_plain_copy(member) for member in network.members)
    )
    serve = serving_function(plain, operating_point.temperature)
    further = {
        method: serving_function(plain, operating_point.temperature, method)
        for method in cam_methods
    }
    sample = held_out if len(held_out) else train
    maps, probability = _sampled(serve, sample)
    if len(held_out):
        probability = scipy.special.expit(held_out_logit / operating_point.temperature)
    fields: dict[str, Any] = {
        "image_size": dataset["image_size"],
        "preprocessing": dataset["preprocessing"],
        "threshold": operating_point.threshold,
        "temperature": operating_point.temperature,
        "uncertain_band": operating_point.uncertain_band,
        "cam": {
            "layer": model_lib.FEATURES,
            **_described(maps),
            "methods": {
                method: _described(_sampled(function, sample)[0])
                for method, function in further.items()
            },
        },
        "architecture": {
            **dataclasses.asdict(network.architecture),
            "head_widths": list(network.architecture.head_widths),
            "members": len(network.members),
            "temperatures": [float(member.temperature) for member in network.members],
            "mirrored": network.mirrored,
            "threshold_rule": operating_point.rule,
            "threshold_fitted": operating_point.fitted,
            **(origin or {}),
        },
        "dataset": {key: dataset[key] for key in dataset if key != "preprocessing"},
        "metrics": metrics,
        "reference": _reference(train, probability),
        "map_checks": _map_checks(plain, held_out),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "artifact"
        archive = keras.export.ExportArchive()
        for member in plain.members:
            archive.track(member.model)
        for name, function in {"serving_default": serve, **further}.items():
            archive.add_endpoint(name, function)
        archive.write_out(str(local), verbose=False)
        for name, member in zip(_keras_files(len(plain.members)), plain.members, strict=True):
            member.model.save(local / name)
        (local / artifact.MODEL_CARD).write_text(model_card.render(fields), encoding="utf-8")
        sealed = artifact.seal(local, **fields)
        if verify_engines:
            sealed = verify.verify(local, *verify.samples(train, held_out))
        storage.replace_folder(local, directory, mark=artifact.MODEL_JSON)
    return sealed


def methods(named: str) -> tuple[str, ...]:
    """The methods that a configuration names, with commas; raises `ConfigError` for one that a SavedModel can't hold."""
    found = tuple(name.strip() for name in named.split(",") if name.strip())
    for method in found:
        if method not in saliency.EXPORTED:
            raise ConfigError(
                f"cam_methods={method}: expected one or several of {', '.join(saliency.EXPORTED)}"
            )
    return found


def _described(maps: np.ndarray) -> dict[str, Any]:
    return {"height": maps.shape[1], "width": maps.shape[2], "scale": _map_scale(maps)}


def _keras_files(members: int) -> list[str]:
    """`model.keras` for one network, `model-1.keras` and so on for several."""
    stem, suffix = artifact.KERAS_FILE.split(".")
    return (
        [artifact.KERAS_FILE]
        if members == 1
        else [f"{stem}-{i + 1}.{suffix}" for i in range(members)]
    )


def _plain_copy(member: Member) -> Member:
    """Return a copy of the member in float32, made from its graph as it stands.

    Built anew, EfficientNet would lack the layer that Keras adds to it for ImageNet's weights.
    """

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.dtype_policy.name.startswith("mixed"):
            settings["dtype"] = "float32"
        return layer.__class__.from_config(settings)

    plain = keras.models.clone_model(member.model, clone_function=in_float32)
    plain.set_weights(member.model.get_weights())
    return dataclasses.replace(member, model=plain)


def _sampled(serve: Any, split: Split, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Maps [n, h, w] and probabilities [n] of images taken evenly from a split."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(_SAMPLE, len(split))).astype(int))
    batches = (chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size))
    outputs = [serve(tf.constant(split.images[batch])) for batch in batches]
    return np.concatenate([o["cam"].numpy() for o in outputs]), np.concatenate(
        [o["probability"].numpy() for o in outputs]
    )


def _map_scale(maps: np.ndarray) -> float:
    """The value drawn at full colour: one positive cell in a hundred lies above it, so that few maps saturate."""
    positive = maps[maps > 0]
    return float(np.quantile(positive, 0.99)) if positive.size else 1.0


def _map_checks(network: Network, held_out: Split) -> dict[str, Any]:
    """Of an ensemble of folds, four in five members have seen each image: that flatters `evidence`, and nothing else."""
    rows = map_checks.select_rows(held_out.labels)
    found = map_checks.check(network, held_out.images[rows], held_out.labels[rows])
    for name, checked in found.items():
        if checked["passed"] is False:
            logging.warning("The maps fail the check %s: %s.", name, checked["said"])
    return found


def _reference(train: Split, probability: np.ndarray) -> dict[str, Any]:
    """Histograms, as shares, of what is normal for this model: probability, and mean grey level of the letterboxed square."""
    brightness = np.array([train.images[i].mean() for i in range(len(train))])
    shares = {}
    for name, values, high in (
        ("probability", probability, 1.0),
        ("brightness", brightness, 255.0),
    ):
        counts, edges = np.histogram(values, bins=10, range=(0.0, high))
        shares[name] = {
            "edges": edges.tolist(),
            "shares": (counts / max(1, len(values))).tolist(),
            "images": len(values),
        }
    return shares
