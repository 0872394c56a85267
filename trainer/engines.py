"""What runs the network of an artifact: TensorFlow, or OpenVINO in several precisions.

Neither is imported before it is asked for: TensorFlow takes seconds and OpenVINO is an extra, so that a scorer loads only the one
that it uses. Which one that is, `batch_inference.inference.engine_choice` says; how far they agree, `trainer.publishing.verify` measures.
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

from trainer.artifact import FREE_METHOD, INT8_NETWORK, Artifact
from trainer.machine import cores as usable_cores
from trainer.program import logging_setup

OUTPUTS = ("probability", "logit", "cam")
BATCH_SIZE = 32
"""Images at once unless told otherwise, and that speeds are measured with."""
_LEAST_PER_PART = 4
_CHECKSUMS = "sha256.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """An engine and its precision; `str()` is what rows carry, as `openvino/float32`."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine}/{self.precision}"


REFERENCE = Choice("tensorflow", "float32")
CHOICES = (
    Choice("openvino", "int8"),
    Choice("openvino", "bfloat16"),
    Choice("openvino", "float32"),
    Choice("tensorflow", "float16"),
    REFERENCE,
)
"""All there are; where nothing is measured, the first that will do is the fastest."""


class Engine(Protocol):
    """A loaded network."""

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [B, size, size, 1] -> probability [B], logit [B], cam [B, h, w], float32. B is the same at every call."""


def load(
    model: pathlib.Path,
    described: Artifact,
    choice: Choice,
    batch_size: int,
    cache: pathlib.Path | None = None,
    method: str = FREE_METHOD,
) -> Engine:
    """Loads the network and runs it once, so that one that cannot run fails here and not on every image.

    Args:
      model: local folder of the artifact.
      cache: folder that keeps conversions between runs; None converts anew.
      method: what draws the map; another than the free one is for TensorFlow alone.
    """
    shape = (batch_size, described.image_size, described.image_size, 1)
    engine: Engine
    if choice.engine == "tensorflow":
        engine = TensorFlowEngine(
            model, choice.precision, "serving_default" if method == FREE_METHOD else method
        )
    elif choice.precision == "int8":
        engine = OpenVinoEngine(model / INT8_NETWORK, choice.precision, shape)
    else:
        network = _converted(model, described.saved_model_id, cache) if cache else model
        engine = OpenVinoEngine(network, choice.precision, shape)
    engine.run(np.zeros(shape, np.uint8))
    return engine


class TensorFlowEngine:
    """The SavedModel as it was exported; in float16, TensorFlow's graph rewriter lowers what it holds safe (GPU only)."""

    def __init__(
        self, model: pathlib.Path, precision: str = "float32", signature: str = "serving_default"
    ):
        # Imported here: seconds, and not needed under OpenVINO.
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
        """For this call alone: the setting is the whole process's."""
        self._tf.config.optimizer.set_experimental_options({"auto_mixed_precision": True})
        try:
            yield
        finally:
            self._tf.config.optimizer.set_experimental_options({"auto_mixed_precision": False})


class OpenVinoEngine:
    """A network of OpenVINO's own form, or a SavedModel; TensorFlow is neither needed nor imported.

    A batch is divided into parts that run beside each other, a core for each: cores that share a part wait for each other at every
    layer, all the more when decoding wants them too.
    """

    def __init__(self, network: pathlib.Path, precision: str, shape: tuple[int, ...]):
        openvino = import_openvino()
        cores = usable_cores()
        parts = _parts(shape[0], cores)
        core = openvino.Core()
        read = core.read_model(str(network))
        keep_logit_exact(read)
        read.reshape([shape[0] // parts, *shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": _unquantised(precision),
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
        """For all, also when one fails: none may still be running when the next batch comes."""
        failures = []
        for request in self._requests:
            try:
                request.wait()
            except RuntimeError as error:
                failures.append(error)
        if failures:
            raise failures[0]


def _unquantised(precision: str) -> str:
    """OpenVINO's name for the arithmetic of what is not quantised: in int8 that is the fastest there is."""
    return "f32" if precision == "float32" or "BF16" not in cpu_capabilities() else "bf16"


def keep_logit_exact(network: Any) -> None:
    """Makes the last product of the head one that OpenVINO computes in float32 whatever the rest is computed in.

    As a product of matrices it would round the logit to 8 binary digits, in which a quarter of the images end level with another.
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


def _parts(batch_size: int, cores: int) -> int:
    """Into how many equal parts to divide a batch: at most one for each core, none too small to fill it."""
    fitting = [
        parts
        for parts in range(1, cores + 1)
        if batch_size % parts == 0 and batch_size // parts >= _LEAST_PER_PART
    ]
    return max(fitting, default=1)


def can_run(choice: Choice) -> bool:
    """Whether this machine has the packages and the hardware that it is made for."""
    if choice.engine == "tensorflow":
        return choice.precision == "float32" or has_gpu()
    if not has_openvino():
        return False
    return {
        "float32": True,
        "bfloat16": "BF16" in cpu_capabilities(),
        "int8": has_int8_products(),
    }[choice.precision]


def suits(choice: Choice) -> bool:
    """Whether to choose it on this machine where it is verified: OpenVINO leaves a GPU idle."""
    return can_run(choice) and not (choice.engine == "openvino" and has_gpu())


def processor() -> str:
    """Name of the processor, as far as the system tells."""
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
    """Intel's runtime, an extra that need not be installed."""
    # It would start a process that tells Google Analytics of this import; without that package, it tells nobody.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    log = python_logging.getLogger()
    handlers = list(log.handlers)
    import openvino

    # Its converter takes absl's handler off the log as it is imported, and with it the form of every later line.
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
    """Whether the processor multiplies bytes without overflow (x86 VNNI, AMX; Arm's dot products).

    Older ones run the same network more slowly, and may saturate where it was verified on a newer one.
    """
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))


def _converted(model: pathlib.Path, saved_model_id: str, cache: pathlib.Path) -> pathlib.Path:
    """OpenVINO's own form of the network, kept by the id of the SavedModel: reading it takes a fraction of the conversion's time.

    One that is not what was kept, whatever happened to it, is converted anew.
    """
    openvino = import_openvino()
    folder = cache / "openvino" / f"{saved_model_id}-{openvino.__version__.split('-')[0]}"
    if not _is_whole(folder):
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
            # Another process may have made the same meanwhile: either is good.
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
        except (OSError, RuntimeError) as error:
            # OpenVINO says nothing of the kind of error; should the model itself be what it cannot take, reading it tells.
            logging.warning(
                "the converted network cannot be kept for the next run in %s: %s",
                folder.parent,
                error,
            )
            return model
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder / "model.xml"


def _is_whole(folder: pathlib.Path) -> bool:
    try:
        return json.loads((folder / _CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the files of a converted network, hexadecimal, by name."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.xml", "model.bin")
    }
