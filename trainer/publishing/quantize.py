"""Quantise the network of an artifact to 8 bits, by NNCF's post-training quantisation.

Jacob et al. 2018, arXiv:1712.05877.
"""

import collections
import contextlib
import io
import logging as python_logging
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainer.artifact import INT8_NETWORK
from trainer.inference import logit_alignment
from trainer.inference.openvino_engine import import_openvino

_EXACT_SHARE = 1 / 12
"""Share of the convolutions of each network, from the first on, that are not quantised."""

_SMOOTHING = 0.5
"""Share of a channel's range that moves from its activations to its weights, in [0, 1]."""


def quantize(model: pathlib.Path, images: np.ndarray, folder: pathlib.Path) -> None:
    """Write the `INT8_NETWORK` of the local artifact `model` below `folder`.

    It is quantised in three ways, and the network whose aligned logits stay closest to the exact
    ones is kept. Ranges of activations from the mean of the images' extremes suit networks in which
    single images stand out by chance; those from the extremes of all images suit networks in which
    that carries meaning. The third way smooths the latter: channels with large activations are
    scaled down and their weights up (SmoothQuant: Xiao et al. 2023, arXiv:2211.10438).

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

    target = folder / INT8_NETWORK
    target.parent.mkdir(exist_ok=True)
    best = min(quantize_in_three_ways(network, images), key=compute_error)
    openvino.save_model(best, target, compress_to_fp16=False)


def quantize_in_three_ways(network: Any, images: np.ndarray) -> Iterator[Any]:
    """Yield the network in 8-bit arithmetic, once for each way that `quantize` describes."""
    # By default NNCF sends a message to its makers for every network.
    os.environ["NNCF_CI"] = "1"
    # Imported here, since this extra need not be installed.
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    nncf.set_log_level(python_logging.ERROR)
    ways = (Ranges.MEAN_MINMAX, False), (Ranges.MINMAX, False), (Ranges.MINMAX, True)
    for ranges, is_smoothed in ways:
        with contextlib.redirect_stdout(io.StringIO()):  # hides progress bars
            yield nncf.quantize(
                network,
                nncf.Dataset([image[None] for image in images]),
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=_list_exact(network), validate=False),
                # Activations have ranges that need not be symmetric: the better choice on
                # DenseNet121 and Xception.
                preset=nncf.QuantizationPreset.MIXED,
                # NNCF smooths nothing else.
                model_type=nncf.ModelType.TRANSFORMER if is_smoothed else None,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=ranges,
                    smooth_quant_alphas=AdvancedSmoothQuantParameters(
                        convolution=_SMOOTHING, matmul=-1
                    ),
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

    The first `_EXACT_SHARE` of each network's convolutions see the radiograph almost as it is, and
    a step of 8 bits has the largest effect there (benchmarks/README.md). Head, probability and map
    take almost no time, and NNCF would quantise the logit itself to a handful of values.
    """
    operations = network.get_ordered_ops()
    exact = [
        name
        for names in _group_convolutions(operations)
        for name in names[: math.ceil(_EXACT_SHARE * len(names))]
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


def _group_convolutions(operations: Sequence[Any]) -> list[list[str]]:
    """Return the names of the convolutions, first to last, of each network in the graph.

    The members of an ensemble and their passes over flipped copies share none. Each begins with a
    convolution that no other leads to.
    """
    begun_by: dict[str, str] = {}
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for operation in operations:
        name = operation.get_friendly_name()
        sources = [value.get_node().get_friendly_name() for value in operation.input_values()]
        is_convolution = "Convolution" in operation.get_type_name()
        first = next((begun_by[source] for source in sources if source in begun_by), None)
        if first or is_convolution:
            begun_by[name] = first or name
        if is_convolution:
            groups[begun_by[name]].append(name)
    return list(groups.values())
