"""The network of an artifact in 8-bit arithmetic: NNCF's post-training quantisation (Jacob et al. 2018, arXiv:1712.05877)."""

import contextlib
import importlib.util
import io
import logging as python_logging
import os
import pathlib
from typing import Any

import numpy as np

from trainer.artifact import INT8_NETWORK
from trainer.engines import import_openvino


def available() -> bool:
    """Whether the packages of the extra `cpu` that this needs are installed."""
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


def quantize(model: pathlib.Path, images: np.ndarray) -> None:
    """Writes `INT8_NETWORK` into the local artifact `model`.

    Args:
      images: uint8 [N, size, size, 1], from which the ranges of activations are taken; some dozens will do, labels aren't needed.
    """
    # Without it NNCF sends a message to its makers for every network.
    os.environ["NNCF_CI"] = "1"
    openvino = import_openvino()
    # Imported here: an extra that need not be installed.
    import nncf

    nncf.set_log_level(python_logging.ERROR)
    network = openvino.Core().read_model(str(model))
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        quantized = nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in images]),
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=_behind_convolutions(network), validate=False),
            # Activations in ranges that need not be symmetric: the better of the two on DenseNet121 and Xception.
            preset=nncf.QuantizationPreset.MIXED,
        )
    target = model / INT8_NETWORK
    target.parent.mkdir(exist_ok=True)
    openvino.save_model(quantized, target, compress_to_fp16=False)


def _behind_convolutions(network: Any) -> list[str]:
    """Names of the operations that feed no convolution: head, probability and map.

    They take next to no time, and NNCF would quantise the logit itself, to a handful of values.
    """
    exact: list[str] = []
    feeds_convolution: set[str] = set()
    for operation in reversed(network.get_ordered_ops()):
        followers = [target.get_node() for output in operation.outputs() for target in output.get_target_inputs()]
        if any("Convolution" in f.get_type_name() or f.get_friendly_name() in feeds_convolution for f in followers):
            feeds_convolution.add(operation.get_friendly_name())
        elif "Convolution" not in operation.get_type_name():
            exact.append(operation.get_friendly_name())
    return exact
