"""Run the network of an artifact with TensorFlow, ONNX Runtime, or OpenVINO in several precisions.

A scorer imports only the engine that it uses: TensorFlow takes seconds to import, and the others
are optional packages. `trainer.inference.engine_choice` chooses the engine.
`trainer.publishing.verify` measures how far engines agree.
"""

import dataclasses
import pathlib
from typing import Protocol

import numpy as np

from trainer import machine
from trainer.artifact import INT8_NETWORK, ONE_PASS_METHOD, ONNX_NETWORK, Artifact
from trainer.inference import onnx_engine, openvino_engine
from trainer.inference.logit_alignment import Alignment
from trainer.inference.tensorflow_engine import TensorFlowEngine
from trainer.model_json.scaling import Scaling

BATCH_SIZE = 32
"""Number of images in a batch by default, and in measurements of speed."""


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
    method: str = ONE_PASS_METHOD,
) -> Engine:
    """Load the network and run it once, so that a broken one fails here, not on every image.

    Its logits are aligned as the artifact records for this engine.

    Args:
      model: local folder of the artifact.
      described: content of its `model.json`.
      choice: engine and precision.
      batch_size: number of images B of each call. An engine maps images uint8 [B, size, size, 1] to
        `probability` [B], `logit` [B] and `cam` [B, h, w], float32.
      cache: folder that keeps converted networks between runs; None converts every time.
      method: method of the map; only TensorFlow has others than `ONE_PASS_METHOD`.
    """
    shape = (batch_size, described.image_size, described.image_size, 1)
    engine: Engine
    if choice.engine == "tensorflow":
        engine = TensorFlowEngine(
            model, choice.precision, "serving_default" if method == ONE_PASS_METHOD else method
        )
    elif choice.engine == "onnx":
        engine = onnx_engine.OnnxEngine(model / ONNX_NETWORK, machine.has_gpu(), cache)
    elif choice.precision == "int8":
        engine = openvino_engine.OpenVinoEngine(model / INT8_NETWORK, choice.precision, shape)
    else:
        network = (
            openvino_engine.convert(model, described.saved_model_id, cache) if cache else model
        )
        engine = openvino_engine.OpenVinoEngine(network, choice.precision, shape)
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


def can_run(choice: Choice) -> bool:
    """Return whether this machine has the packages and the hardware for a choice."""
    if choice.engine == "tensorflow":
        return choice.precision == "float32" or machine.has_gpu()
    if choice.engine == "onnx":
        return machine.has_packages("onnxruntime")
    if not machine.has_packages("openvino"):
        return False
    return {
        "float32": True,
        "bfloat16": "BF16" in openvino_engine.cpu_capabilities(),
        "int8": machine.has_int8_products(),
    }[choice.precision]


def is_suitable(choice: Choice) -> bool:
    """Return whether a choice can run here and leaves no GPU idle, as OpenVINO would."""
    return can_run(choice) and (not machine.has_gpu() or device(choice) == "GPU")


def device(choice: Choice) -> str:
    """Return `GPU` or `CPU`, where a choice runs on this machine."""
    has_gpu = machine.has_gpu()
    on_gpu = {"tensorflow": has_gpu, "onnx": onnx_engine.runs_on_gpu(has_gpu)}
    return "GPU" if on_gpu.get(choice.engine) else "CPU"
