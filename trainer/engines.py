"""Run the network of an artifact with TensorFlow, ONNX Runtime, or OpenVINO in several precisions.

A scorer imports only the engine that it uses: TensorFlow takes seconds to import, and the others
are optional packages. `trainer.engine_choice` chooses the engine.
`trainer.publishing.verify` measures how far engines agree.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import logging as python_logging
import pathlib
import platform
import shutil
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from absl import logging

from trainer.artifact import FREE_METHOD, INT8_NETWORK, ONNX_NETWORK, Artifact
from trainer.logit_alignment import Alignment
from trainer.machine import cores as usable_cores
from trainer.onnx_engine import OnnxEngine, has_onnxruntime, runs_on_gpu
from trainer.program import logging_setup
from trainer.scaling import Scaling

OUTPUTS = ("probability", "logit", "cam")
BATCH_SIZE = 32
"""Number of images in a batch by default, and in measurements of speed."""
_LEAST_PER_PART = 4
_CHECKSUMS = "sha256.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """An engine and its precision; rows contain its `str()`, such as `openvino/float32`."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine}/{self.precision}"


REFERENCE = Choice("tensorflow", "float32")
CHOICES = (
    Choice("openvino", "int8"),
    Choice("openvino", "bfloat16"),
    Choice("openvino", "float32"),
    Choice("onnx", "float32"),
    Choice("tensorflow", "float16"),
    REFERENCE,
)
"""All choices, the fastest first where speeds are not measured."""
NETWORK_FILES = {"openvino/int8": INT8_NETWORK, "onnx/float32": ONNX_NETWORK}
"""Choices whose network is a file of its own in the artifact, which need not have it."""


class Engine(Protocol):
    """A loaded network."""

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return `probability` [B], `logit` [B] and `cam` [B, h, w], all float32.

        Args:
          image: uint8 [B, size, size, 1]; B is the same at every call.
        """


def load(
    model: pathlib.Path,
    described: Artifact,
    choice: Choice,
    batch_size: int,
    cache: pathlib.Path | None = None,
    method: str = FREE_METHOD,
) -> Engine:
    """Load the network and run it once, so that a broken one fails here, not on every image.

    Its logits are aligned as the artifact records for this engine.

    Args:
      model: local folder of the artifact.
      cache: folder that keeps converted networks between runs; None converts every time.
      method: method of the map; only TensorFlow has others than `FREE_METHOD`.
    """
    shape = (batch_size, described.image_size, described.image_size, 1)
    engine: Engine
    if choice.engine == "tensorflow":
        engine = TensorFlowEngine(
            model, choice.precision, "serving_default" if method == FREE_METHOD else method
        )
    elif choice.engine == "onnx":
        engine = OnnxEngine(model / ONNX_NETWORK, has_gpu(), cache)
    elif choice.precision == "int8":
        engine = OpenVinoEngine(model / INT8_NETWORK, choice.precision, shape)
    else:
        network = _convert(model, described.saved_model_id, cache) if cache else model
        engine = OpenVinoEngine(network, choice.precision, shape)
    engine.run(np.zeros(shape, np.uint8))
    line = described.engines.get(str(choice), {}).get("alignment")
    if line is None:
        return engine
    return AlignedEngine(engine, Alignment(line["slope"], line["offset"]), described.scaling)


class AlignedEngine:
    """An engine whose logits are aligned."""

    def __init__(self, engine: Engine, alignment: Alignment, scaling: Scaling):
        self._engine, self._alignment, self._scaling = engine, alignment, scaling

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return self._alignment.apply(self._engine.run(image), self._scaling)


class TensorFlowEngine:
    """The exported SavedModel; in float16 (GPU only), TensorFlow lowers what it can safely."""

    def __init__(
        self, model: pathlib.Path, precision: str = "float32", signature: str = "serving_default"
    ):
        # The import takes seconds and is not needed for OpenVINO.
        logging_setup.import_tensorflow()
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(model))
        self._serve = self._loaded.signatures[signature]
        self._tf = tf
        self._mixed = precision == "float16"

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        with self._mixed_precision() if self._mixed else contextlib.nullcontext():
            return {
                name: value.numpy()
                for name, value in self._serve(image=self._tf.constant(image)).items()
            }

    @contextlib.contextmanager
    def _mixed_precision(self) -> Iterator[None]:
        """Switch mixed precision on for one call: the setting applies to the whole process."""
        self._tf.config.optimizer.set_experimental_options({"auto_mixed_precision": True})
        try:
            yield
        finally:
            self._tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})


class OpenVinoEngine:
    """A network in OpenVINO's format, or a SavedModel, without TensorFlow.

    A batch is divided into parts that run in parallel, one per core. Cores that share a part would
    wait for each other at every layer, and more so while others decode images.
    """

    def __init__(self, network: pathlib.Path, precision: str, shape: tuple[int, ...]):
        openvino = import_openvino()
        cores = usable_cores()
        parts = _count_parts(shape[0], cores)
        core = openvino.Core()
        read = core.read_model(str(network))
        keep_logit_exact(read)
        read.reshape([shape[0] // parts, *shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": _choose_float_precision(precision),
            "NUM_STREAMS": parts,
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


def _count_parts(batch_size: int, cores: int) -> int:
    """Return the number of equal parts of a batch: at most one per core, and none too small."""
    fitting = [
        parts
        for parts in range(1, cores + 1)
        if batch_size % parts == 0 and batch_size // parts >= _LEAST_PER_PART
    ]
    return max(fitting, default=1)


def can_run(choice: Choice) -> bool:
    """Return whether this machine has the packages and the hardware for a choice."""
    if choice.engine == "tensorflow":
        return choice.precision == "float32" or has_gpu()
    if choice.engine == "onnx":
        return has_onnxruntime()
    if not has_openvino():
        return False
    return {
        "float32": True,
        "bfloat16": "BF16" in cpu_capabilities(),
        "int8": has_int8_products(),
    }[choice.precision]


def is_suitable(choice: Choice) -> bool:
    """Return whether a choice can run here and leaves no GPU idle, as OpenVINO would."""
    return can_run(choice) and (not has_gpu() or device(choice) == "GPU")


def device(choice: Choice) -> str:
    """Return `GPU` or `CPU`, where a choice runs on this machine."""
    on_gpu = {"tensorflow": has_gpu(), "onnx": runs_on_gpu(has_gpu())}
    return "GPU" if on_gpu.get(choice.engine) else "CPU"


def processor() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        lines = (
            pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        )
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


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


def has_gpu() -> bool:
    return pathlib.Path("/dev/nvidia0").exists()


@functools.cache
def cpu_capabilities() -> tuple[str, ...]:
    return tuple(import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@functools.cache
def has_int8_products() -> bool:
    """Return whether the processor multiplies bytes without overflow (VNNI, AMX, Arm dot product).

    Older processors run an int8 network more slowly, and products may saturate.
    """
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))


def _convert(model: pathlib.Path, saved_model_id: str, cache: pathlib.Path) -> pathlib.Path:
    """Return the network in OpenVINO's format, from the cache if it is there and intact.

    Reading a cached network takes a fraction of the time of a conversion.
    """
    openvino = import_openvino()
    folder = cache / "openvino" / f"{saved_model_id}-{openvino.__version__.split('-')[0]}"
    if not _is_intact(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        except OSError as error:
            logging.warning(
                "the converted network cannot be kept for the next run in %s: %s",
                folder.parent,
                error.strerror,
            )
            return model
        try:
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
        finally:
            shutil.rmtree(partial, ignore_errors=True)
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
