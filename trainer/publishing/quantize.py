"""Quantise the network of an artifact to 8 bits, by NNCF's post-training quantisation.

Jacob et al. 2018, arXiv:1712.05877.
"""

import contextlib
import io
import logging as python_logging
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.artifact import INT8_NETWORK
from trainer.inference import logit_alignment
from trainer.inference.openvino_engine import import_openvino

_EXACT_SHARE = 1 / 12
"""Share of the convolutions, from the first on, that are not quantised."""


def quantize(model: pathlib.Path, images: np.ndarray) -> None:
    """Write `INT8_NETWORK` into the local artifact `model`.

    The ranges of activations are estimated in two ways, and the network whose aligned logits stay
    closer to the exact ones is kept. The mean of the images' extremes suits networks in which
    single images stand out by chance; the extremes of all images suit networks in which that
    carries meaning.

    Args:
      images: uint8 [N, size, size, 1], from which the ranges are estimated; some dozens suffice,
        and labels aren't needed.
    """
    openvino = import_openvino()
    # Unlike `read_model`, this folds batch normalisation into the convolutions. NNCF corrects the
    # bias of no other ones.
    network = openvino.convert_model(str(model))
    exact = compute_logit(network, images)

    def compute_error(quantized: Any) -> float:
        logit = compute_logit(quantized, images)
        line = logit_alignment.fit(logit, exact)
        return float(np.sqrt(np.mean((line.slope * logit + line.offset - exact) ** 2)))

    target = model / INT8_NETWORK
    target.parent.mkdir(exist_ok=True)
    best = min(quantize_in_two_ways(network, images), key=compute_error)
    openvino.save_model(best, target, compress_to_fp16=False)


def quantize_in_two_ways(network: Any, images: np.ndarray) -> Iterator[Any]:
    """Yield the network in 8-bit arithmetic, once for each way of estimating ranges."""
    # By default NNCF sends a message to its makers for every network.
    os.environ["NNCF_CI"] = "1"
    # Imported here, since this extra need not be installed.
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    nncf.set_log_level(python_logging.ERROR)
    for ranges in (Ranges.MEAN_MINMAX, Ranges.MINMAX):
        with contextlib.redirect_stdout(io.StringIO()):  # hides progress bars
            yield nncf.quantize(
                network,
                nncf.Dataset([image[None] for image in images]),
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=_list_exact(network), validate=False),
                # Activations have ranges that need not be symmetric: the better choice on
                # DenseNet121 and Xception.
                preset=nncf.QuantizationPreset.MIXED,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=ranges
                ),
            )


def compute_logit(network: Any, images: np.ndarray) -> np.ndarray:
    """Return the logit of each image, float32 [N]; what is not quantised runs in float32."""
    compiled = (
        import_openvino().Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    return np.concatenate([compiled(image[None])["logit"] for image in images])


def _list_exact(network: Any) -> list[str]:
    """List the operations that stay exact: the first convolutions, and all that lead to none.

    The first `_EXACT_SHARE` of the convolutions see the radiograph almost as it is, and a step of 8
    bits has the largest effect there (docs/engines.md). Head, probability and map take almost no
    time, and NNCF would quantise the logit itself to a handful of values.
    """
    operations = network.get_ordered_ops()
    convolutions = [
        operation.get_friendly_name()
        for operation in operations
        if "Convolution" in operation.get_type_name()
    ]
    exact = convolutions[: math.ceil(_EXACT_SHARE * len(convolutions))]
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
