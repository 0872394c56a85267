"""The network of an artifact in 8-bit arithmetic: NNCF's post-training quantisation (Jacob et al. 2018, arXiv:1712.05877)."""

import contextlib
import importlib.util
import io
import logging as python_logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.artifact import INT8_NETWORK
from trainer.engines import import_openvino


def available() -> bool:
    """Whether the packages of the extra `cpu` that this needs are installed."""
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


def quantize(model: pathlib.Path, images: np.ndarray) -> None:
    """Writes `INT8_NETWORK` into the local artifact `model`.

    The ranges of activations are taken in two ways, and the network that stays closer to the exact one is kept: the mean of the images'
    extremes suits networks in which single images stand out by chance, the extremes of all images those in which that means something.

    Args:
      images: uint8 [N, size, size, 1], from which the ranges are taken; some dozens will do, labels aren't needed.
    """
    openvino = import_openvino()
    network = openvino.Core().read_model(str(model))
    exact = _probability(network, images)

    def error(quantized: Any) -> float:
        return float(np.abs(_probability(quantized, images) - exact).mean())

    target = model / INT8_NETWORK
    target.parent.mkdir(exist_ok=True)
    openvino.save_model(min(_quantized(network, images), key=error), target, compress_to_fp16=False)


def _quantized(network: Any, images: np.ndarray) -> Iterator[Any]:
    """The network in 8-bit arithmetic, once for each way of taking ranges."""
    # Without it NNCF sends a message to its makers for every network.
    os.environ["NNCF_CI"] = "1"
    # Imported here: an extra that need not be installed.
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    nncf.set_log_level(python_logging.ERROR)
    for ranges in (Ranges.MEAN_MINMAX, Ranges.MINMAX):
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            yield nncf.quantize(
                network,
                nncf.Dataset([image[None] for image in images]),
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=_kept_exact(network), validate=False),
                # Activations in ranges that need not be symmetric: the better of the two on DenseNet121 and Xception.
                preset=nncf.QuantizationPreset.MIXED,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=ranges
                ),
            )


def _probability(network: Any, images: np.ndarray) -> np.ndarray:
    """float32 [N], in float32 where the network isn't quantised."""
    compiled = (
        import_openvino().Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    return np.concatenate([compiled(image[None])["probability"] for image in images])


def _kept_exact(network: Any) -> list[str]:
    """Names of the operations that are not quantised: the first convolution, and all that feeds none.

    The first one sees the radiograph itself, where a step of 8 bits weighs most. Head, probability and map take next to no time, and
    NNCF would quantise the logit itself, to a handful of values.
    """
    operations = network.get_ordered_ops()
    exact = [
        next(
            operation.get_friendly_name()
            for operation in operations
            if "Convolution" in operation.get_type_name()
        )
    ]
    feeds_convolution: set[str] = set()
    for operation in reversed(operations):
        followers = [
            target.get_node()
            for output in operation.outputs()
            for target in output.get_target_inputs()
        ]
        if any(
            "Convolution" in f.get_type_name() or f.get_friendly_name() in feeds_convolution
            for f in followers
        ):
            feeds_convolution.add(operation.get_friendly_name())
        elif "Convolution" not in operation.get_type_name():
            exact.append(operation.get_friendly_name())
    return exact
