"""Run the network of an artifact in ONNX with ONNX Runtime: no TensorFlow, on a CPU or a GPU.

`onnxruntime` runs on CPUs, and `onnxruntime-gpu`, which has the same name in Python, also by CUDA
and TensorRT. `trainer.publishing.onnx_export` makes the network.
"""

import ctypes.util
import pathlib
from typing import Any

import numpy as np
from absl import logging

from trainer import machine

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_ERRORS_ONLY = 3


def runs_on_gpu(has_gpu: bool) -> bool:
    """Return whether the installed ONNX Runtime would use a GPU.

    Args:
      has_gpu: whether this machine has one.
    """
    return has_gpu and machine.has_packages("onnxruntime") and len(choose_providers(has_gpu)) > 1


class OnnxEngine:
    """A network in ONNX, run by the best provider here: TensorRT, CUDA, then the CPU."""

    def __init__(self, network: pathlib.Path, has_gpu: bool, cache: pathlib.Path | None = None):
        """Load the network.

        Args:
          network: an `.onnx` file.
          has_gpu: whether this machine has a GPU.
          cache: folder that keeps what TensorRT compiles, which takes minutes; None compiles anew.
        """
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = machine.cores()
        # Threads that wait for work in a loop take the cores from those that decode images.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = _ERRORS_ONLY
        wanted = choose_providers(has_gpu)
        self._session = onnxruntime.InferenceSession(
            str(network), settings, providers=[(name, _set_up(name, cache)) for name in wanted]
        )
        used = self._session.get_providers()
        if wanted[0] not in used:
            logging.warning("ONNX Runtime cannot use %s here; it uses %s", wanted[0], used[0])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        values = self._session.run(self._outputs, {"image": image})
        return dict(zip(self._outputs, values, strict=True))


def choose_providers(has_gpu: bool) -> list[str]:
    """Return the providers that the package and this machine have, the fastest first."""
    import onnxruntime

    present = set(onnxruntime.get_available_providers()) if has_gpu else set()
    if not has_tensorrt():
        present.discard(_TENSORRT)
    return [name for name in (_TENSORRT, _CUDA) if name in present] + [_CPU]


def has_tensorrt() -> bool:
    """Return whether TensorRT is installed: ONNX Runtime lists its provider even where it is not.

    The library may be one of the system or of the package `tensorrt`.
    """
    return machine.has_packages("tensorrt") or ctypes.util.find_library("nvinfer") is not None


def _set_up(provider: str, cache: pathlib.Path | None) -> dict[str, Any]:
    """Return a provider's options."""
    if provider == _CUDA:
        return {"use_tf32": "0"}  # which would round products to 10 binary digits
    if provider == _TENSORRT and cache:
        folder = cache / "tensorrt"
        return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
    return {}
