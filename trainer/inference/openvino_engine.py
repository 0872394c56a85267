"""Run the network of an artifact with OpenVINO, an optional package, on a CPU."""

import functools
import hashlib
import json
import logging as python_logging
import pathlib
import shutil
import sys
import tempfile
import threading
import types
from typing import Any

import numpy as np
from absl import logging

from trainer import machine
from trainer.artifact import OUTPUTS

_LEAST_PER_PART = 4
_CHECKSUMS = "sha256.json"


class OpenVinoEngine:
    """A network in OpenVINO's format, or a SavedModel, without TensorFlow.

    A batch is divided into parts, of which each core computes one at a time. Cores that share a
    part would wait for each other at every layer, and more so while others decode images.
    """

    def __init__(self, network: pathlib.Path, precision: str, shape: tuple[int, ...]):
        openvino = import_openvino()
        cores = machine.cores()
        parts = _count_parts(shape[0], shape[0] if precision == "int8" else cores)
        core = openvino.Core()
        read = core.read_model(str(network))
        keep_logit_exact(read)
        read.reshape([shape[0] // parts, *shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": _choose_float_precision(precision),
            "NUM_STREAMS": min(parts, cores),
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(read, "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(parts)]
        self._one_at_a_time = threading.Lock()

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(image, len(self._requests))
        with self._one_at_a_time:
            for request, part in zip(self._requests, parts, strict=True):
                request.start_async({"image": part}, share_inputs=True)
            self._wait()
            return {
                name: np.concatenate([r.get_tensor(name).data for r in self._requests])
                for name in OUTPUTS
            }

    def _wait(self) -> None:
        """Wait for all requests, also if one fails: none may run when the next batch comes."""
        failures = []
        for request in self._requests:
            try:
                request.wait()
            except RuntimeError as error:
                failures.append(error)
        if failures:
            raise failures[0]


def _choose_float_precision(precision: str) -> str:
    """Return OpenVINO's name for the arithmetic of layers that are not quantised."""
    return "f32" if precision == "float32" or "BF16" not in cpu_capabilities() else "bf16"


def keep_logit_exact(network: Any) -> None:
    """Replace the head's last matrix product, so that OpenVINO computes it in float32.

    In bfloat16, the product would round the logit to 8 binary digits, and a quarter of the images
    would have the same logit as another.
    """
    openvino = import_openvino()
    from openvino import opset13

    for operation in network.get_ordered_ops():
        if (
            operation.get_type_name() != "MatMul"
            or operation.input_value(1).get_node().get_type_name() != "Constant"
        ):
            continue
        weights, transposed = operation.input_value(1).get_node().data, operation.get_attributes()
        if weights.ndim != 2 or transposed["transpose_a"]:
            continue
        kernel = weights.T if transposed["transpose_b"] else weights
        if kernel.shape[1] == 1:
            products = opset13.multiply(
                operation.input_value(0), opset13.constant(kernel[:, 0].copy())
            )
            total = opset13.reduce_sum(products, opset13.constant(np.array([-1])), keep_dims=True)
            openvino.utils.replace_node(operation, total)


def _count_parts(batch_size: int, most: int) -> int:
    """Return the number of equal parts of a batch: at most `most`, and none too small.

    In int8, DenseNet121 takes three quarters of the time in the smallest parts, perhaps because of
    the cache. In float32, and in int8 with Xception at 128 px, parts make no difference.
    """
    fitting = [
        parts
        for parts in range(1, most + 1)
        if batch_size % parts == 0 and batch_size // parts >= _LEAST_PER_PART
    ]
    return max(fitting, default=1)


def import_openvino() -> types.ModuleType:
    """Import OpenVINO, which is an optional package."""
    # With this package, OpenVINO would start a process that reports the import to Google Analytics.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    log = python_logging.getLogger()
    handlers = list(log.handlers)
    import openvino

    # Its import removes absl's handler from the log, and with it the format of later lines.
    for handler in handlers:
        log.addHandler(handler)
    return openvino


@functools.cache
def cpu_capabilities() -> tuple[str, ...]:
    return tuple(import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def convert(model: pathlib.Path, saved_model_id: str, cache: pathlib.Path) -> pathlib.Path:
    """Return the network in OpenVINO's format, from the cache if it is there and intact.

    Reading a cached network takes a fraction of the time of a conversion.
    """
    openvino = import_openvino()
    folder = cache / "openvino" / f"{saved_model_id}-{openvino.__version__.split('-')[0]}"
    if _is_intact(folder):
        return folder / "model.xml"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=".partial-", ignore_cleanup_errors=True
        ) as made:
            partial = pathlib.Path(made)
            openvino.save_model(
                openvino.Core().read_model(str(model)),
                partial / "model.xml",
                compress_to_fp16=False,
            )
            (partial / _CHECKSUMS).write_text(json.dumps(_checksums(partial)))
            # Another process may have written the same network meanwhile.
            if not _is_intact(folder):
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
    except (OSError, RuntimeError) as error:
        # This need not be the cache's fault. If it is the model's, reading that fails too.
        logging.warning(
            "the converted network cannot be kept for the next run in %s: %s",
            folder.parent,
            error,
        )
        return model
    return folder / "model.xml"


def _is_intact(folder: pathlib.Path) -> bool:
    try:
        return json.loads((folder / _CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a converted network, in hexadecimal, by name."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.xml", "model.bin")
    }
