"""Export a trained network as an artifact: SavedModel, Keras files, `model.json` and model card.

The SavedModel needs no code of this project.
"""

import dataclasses
import datetime
import hashlib
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import artifact, storage
from trainer.artifact import Artifact
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepared_split import Split
from trainer.evaluation import map_checks
from trainer.evaluation.calibration import OperatingPoint
from trainer.evaluation.cases import sample_rows, spread_over_labels
from trainer.network import model as model_lib
from trainer.network.replica_dropout import ReplicaDropout
from trainer.network.serving import Member, Network, serving_function
from trainer.program.progress import show_each
from trainer.publishing import artifact_folder, model_card, verification_images, verify
from trainer.publishing.trained import EvaluationResult, TrainingResult

_SAMPLE_IMAGES = 256
"""Images that the scale of the maps is estimated from; their cells are many times more."""

Serve = Callable[..., Mapping[str, tf.Tensor]]
"""The function of a signature, see `serving.serving_function`."""


def export(
    trained: TrainingResult,
    measured: EvaluationResult,
    dataset: DatasetInfo,
    directory: str,
    test: Split | None = None,
    verify_engines: bool = False,
    cam_methods: Sequence[str] = (),
) -> Artifact:
    """Write the artifact to `directory`, local or in a bucket, completely or not at all.

    It is made in a temporary folder first. An artifact that lies in `directory` is replaced.
    Whatever the strategy and precision of training were, the exported weights are plain float32.
    Where no image was held out, the training images set the scale of the maps.

    Args:
      trained: the networks, the images that they were trained on, and those held out.
      measured: the operating point and the metrics that `model.json` and the card state.
      dataset: what preparation recorded of the training data.
      directory: folder of the artifact.
      test: images on which the engines are compared too, beside those held out.
      verify_engines: measure the engines that score faster than TensorFlow, so that a scorer may
        use them.
      cam_methods: methods of `saliency.EXPORTED`; each becomes a signature of the SavedModel that
        returns its own map.

    Raises:
      ConfigError: see `artifact_folder.check_replaceable`.
    """
    plain = dataclasses.replace(
        trained.network, members=tuple(copy_in_float32(m) for m in trained.network.members)
    )
    scaling = measured.operating_point.scaling
    served: dict[str, Any] = {
        "serving_default": serving_function(plain, scaling),
        **{name: serving_function(plain, scaling, name) for name in cam_methods},
    }
    fields = _describe(trained, plain, measured, dataset, served)
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "artifact"
        _write_models(local, plain, served)
        model_card.write(local, fields, {})
        sealed = artifact.seal(local, weights_digest=_digest_weights(plain), **fields)
        if verify_engines:
            samples = verification_images.choose_samples(
                trained.train, trained.held_out.split, *([] if test is None else [test])
            )
            sealed = verify.verify(local, *samples)
        artifact_folder.check_replaceable(directory)
        # In a bucket `model.json` is written last, and so marks the rest as complete.
        storage.replace_folder(local, directory, mark=artifact.MODEL_JSON)
    return sealed


def _write_models(local: Path, plain: Network, served: Mapping[str, Any]) -> None:
    """Write the SavedModel and the Keras file of each member."""
    archive = keras.export.ExportArchive()
    for member in plain.members:
        archive.track(member.model)
    for name, function in served.items():
        archive.add_endpoint(name, function)
    archive.write_out(str(local), verbose=False)
    names = artifact.list_keras_files(len(plain.members))
    for name, member in zip(names, plain.members, strict=True):
        member.model.save(local / name)


def _describe(
    trained: TrainingResult,
    plain: Network,
    measured: EvaluationResult,
    dataset: DatasetInfo,
    served: Mapping[str, Serve],
) -> dict[str, Any]:
    """Return the fields of `model.json`, see `artifact.Artifact`."""
    point, held_out = measured.operating_point, trained.held_out
    sample = held_out.split if len(held_out.split) else trained.train
    default, *further = ((name, *_run_on_sample(serve, sample)) for name, serve in served.items())
    _, maps, probability = default
    if len(held_out.split):
        probability = point.scaling.compute_probability(held_out.logit)
    described = dataset.to_dict()
    preprocessing = described.pop("preprocessing")
    return {
        "image_size": dataset.image_size,
        "preprocessing": preprocessing,
        "threshold": point.threshold,
        "temperature": point.scaling.temperature,
        "intercept": point.scaling.intercept,
        "study_calibration": dataclasses.asdict(point.effective_study_scaling),
        "calibration": dict(point.records),
        "uncertain_band": point.uncertain_band,
        "cam": {
            "layer": model_lib.FEATURES,
            **_describe_maps(maps),
            "methods": {name: _describe_maps(found) for name, found, _ in further},
        },
        "architecture": _describe_architecture(trained, point),
        "dataset": described,
        "metrics": measured.metrics,
        "reference": _compute_reference(trained.train, probability),
        "map_checks": _check_maps(plain, held_out.split),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _describe_architecture(trained: TrainingResult, point: OperatingPoint) -> dict[str, Any]:
    network = trained.network
    return {
        **_describe_networks([member.architecture for member in network.members]),
        "backbone": network.backbones,
        "members": len(network.members),
        "temperatures": [float(member.temperature) for member in network.members],
        "flips": network.flips,
        "flip_gains": dict(trained.flip_gains),
        "threshold_rule": point.rule,
        "threshold_fitted": point.fitted,
        **({"parts": list(trained.parts)} if trained.parts else {}),
        **(dataclasses.asdict(trained.origin) if trained.origin else {}),
    }


def _describe_networks(members: Sequence[model_lib.Architecture]) -> dict[str, Any]:
    """Return what members have in common, or all of them as `networks` where they differ."""
    described = [
        {**dataclasses.asdict(member), "head_widths": list(member.head_widths)}
        for member in members
    ]
    same = all(member == described[0] for member in described)
    return described[0] if same else {"networks": described}


def _describe_maps(maps: np.ndarray) -> dict[str, Any]:
    """Return height, width and scale of maps, float32 [N, h, w].

    The scale is the value drawn at full colour. One positive cell in a hundred lies above it, so
    that few maps saturate.
    """
    positive = maps[maps > 0]
    scale = float(np.quantile(positive, 0.99)) if positive.size else 1.0
    return {"height": maps.shape[1], "width": maps.shape[2], "scale": scale}


def copy_in_float32(member: Member) -> Member:
    """Return a copy of the member in float32, made from its graph as it stands.

    A new graph would lack the layer that Keras adds to EfficientNet for ImageNet's
    weights.
    """

    def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.dtype_policy.name.startswith("mixed"):
            settings["dtype"] = "float32"
        # The exported file needs Keras alone.
        is_ours = isinstance(layer, ReplicaDropout)
        kind = keras.layers.Dropout if is_ours else layer.__class__
        return kind.from_config(settings)

    copy = keras.models.clone_model(member.model, clone_function=copy_layer)
    copy.set_weights(member.model.get_weights())
    return dataclasses.replace(member, model=copy)


def _digest_weights(network: Network) -> str:
    """Return a SHA-256, in hexadecimal, over the values of all members' weights in order.

    The files of a SavedModel cannot serve: names and random ids in them differ from one export
    of the same weights to the next.
    """
    digest = hashlib.sha256()
    for member in network.members:
        for values in member.model.get_weights():
            digest.update(f"{values.dtype.str}{values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _run_on_sample(
    serve: Serve, split: Split, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps [n, h, w] and probabilities [n] of images spread evenly over a split."""
    rows = sample_rows(len(split), _SAMPLE_IMAGES)
    starts = show_each(range(0, len(rows), batch_size), "scoring a sample for the export")
    batches = (rows[start : start + batch_size] for start in starts)
    outputs = [serve(tf.constant(split.images[batch])) for batch in batches]
    maps, probability = (
        np.concatenate([output[name].numpy() for output in outputs])
        for name in ("cam", "probability")
    )
    return maps, probability


def _check_maps(network: Network, held_out: Split) -> dict[str, Any]:
    """Check that the maps mean something, and warn of each check that fails.

    Four in five members of an ensemble of five folds have seen each image. That flatters the check
    `evidence`, and no other.
    """
    rows = spread_over_labels(held_out.labels, map_checks.MOST_IMAGES)
    found = map_checks.check(network, held_out.images[rows], held_out.labels[rows])
    for name, checked in found.items():
        if checked["passed"] is False:
            logging.warning("The maps fail the check %s: %s.", name, checked["said"])
    return found


def _compute_reference(train: Split, probability: np.ndarray) -> dict[str, Any]:
    """Return histograms of what is normal for this model, against which drift is measured.

    They hold the probability, and the mean grey level of the letterboxed square, as shares.
    """
    brightness = np.array([train.images[i].mean() for i in range(len(train))])
    reference = {}
    for name, values, high in (
        ("probability", probability, 1.0),
        ("brightness", brightness, 255.0),
    ):
        counts, edges = np.histogram(values, bins=10, range=(0.0, high))
        reference[name] = {
            "edges": edges.tolist(),
            "shares": (counts / max(1, len(values))).tolist(),
            "images": len(values),
        }
    return reference
