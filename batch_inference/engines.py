"""What runs the network of an artifact: TensorFlow or OpenVINO, chosen by what the artifact records as verified."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from absl import logging

from batch_inference import storage
from trainer.artifact import Artifact
from trainer.errors import ConfigError

ENGINES = ("auto", "tensorflow", "openvino")
PRECISIONS = ("auto", "float32", "bfloat16")
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """An engine and its precision; `str()` is what rows carry, as `openvino/float32`."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine}/{self.precision}"


class Engine(Protocol):
    """A loaded network."""

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [B, size, size, 1] -> probability [B], logit [B], cam [B, h, w], float32. B is the same at every call."""


def choose(described: Artifact, engine: str = "auto", precision: str = "auto", runs_here: bool = True) -> Choice:
    """Settles `auto`: the fastest engine here that the artifact records as within tolerance, else TensorFlow in float32.

    Where it is not to run here, nothing is known of processors and packages: TensorFlow, which every worker has, unless another is named.

    Raises:
      ConfigError: what was asked for cannot run here.
    """
    if engine == "tensorflow" and precision == "bfloat16":
        raise ConfigError(
            "--engine=tensorflow computes as exported, in float32; use --engine=openvino for --precision=bfloat16"
        )
    if engine == "openvino" and runs_here and not _has_openvino():
        raise ConfigError("--engine=openvino needs the package openvino; install it with: pip install 'humerus[cpu]'")
    candidates = [
        choice
        for choice in (Choice("openvino", "bfloat16"), Choice("openvino", "float32"), Choice("tensorflow", "float32"))
        if engine in ("auto", choice.engine) and precision in ("auto", choice.precision)
    ]
    if engine == "auto" and runs_here and not _has_openvino() and not _has_gpu():
        logging.info("scoring would be faster with the extra `cpu`: pip install 'humerus[cpu]'")
    suits = _runs_well_here if runs_here else lambda choice: _runs_anywhere(choice, engine, precision)
    fit = [choice for choice in candidates if _verified(described, choice) and suits(choice)]
    if fit:
        return fit[0]
    if engine == "auto":
        raise ConfigError(
            f"the artifact records no engine as verified for --precision={precision}; name one with --engine to force it"
        )
    # The least daring of what was asked for.
    forced = candidates[-1]
    logging.warning("%s is used as asked; the artifact does not record that it agrees with TensorFlow", forced)
    return forced


def load(model: pathlib.Path, described: Artifact, choice: Choice, batch_size: int) -> Engine:
    """Loads the network and runs it once, so that one that cannot run fails here and not on every image."""
    shape = (batch_size, described.image_size, described.image_size, 1)
    engine: Engine = (
        OpenVinoEngine(model, described.model_id, choice.precision, shape)
        if choice.engine == "openvino"
        else TensorFlowEngine(model)
    )
    engine.run(np.zeros(shape, np.uint8))
    return engine


class TensorFlowEngine:
    """The SavedModel as it was exported."""

    def __init__(self, model: pathlib.Path):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _native_stderr_held_back():
            # Imported here: seconds, and not needed under OpenVINO.
            import tensorflow as tf

            self._loaded = tf.saved_model.load(str(model))
        self._serve = self._loaded.signatures["serving_default"]
        self._tensor = tf.convert_to_tensor

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self._serve(image=self._tensor(image)).items()}


class OpenVinoEngine:
    """The SavedModel converted for Intel's runtime; TensorFlow is neither needed nor imported."""

    def __init__(self, model: pathlib.Path, model_id: str, precision: str, shape: tuple[int, ...]):
        # Imported here: an extra that need not be installed.
        import openvino

        core = openvino.Core()
        network = core.read_model(str(_converted(model, model_id, core)))
        network.reshape(list(shape))
        # One stream over all cores beats one per core two to one here, as batches come one after the other.
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
        self._request = core.compile_model(network, "CPU", hints).create_infer_request()
        self._one_at_a_time = threading.Lock()

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        with self._one_at_a_time:
            outputs = self._request.infer({"image": image})
            return {name: np.array(outputs[name]) for name in ("probability", "logit", "cam")}


def _converted(model: pathlib.Path, model_id: str, core) -> pathlib.Path:
    """OpenVINO's own form of the network, kept by model id: reading it takes a fraction of the conversion's time."""
    import openvino

    folder = storage.cache_folder() / "openvino" / f"{model_id}-{openvino.__version__.split('-')[0]}"
    if not (folder / "model.xml").is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        except OSError as error:
            logging.warning("the converted network cannot be kept for the next run in %s: %s", folder.parent, error.strerror)
            return model
        try:
            openvino.save_model(core.read_model(str(model)), partial / "model.xml", compress_to_fp16=False)
            if not folder.is_dir():
                partial.rename(folder)
        except (OSError, RuntimeError) as error:
            # OpenVINO says nothing of the kind of error; should the model itself be what it cannot take, reading it tells.
            logging.warning("the converted network cannot be kept for the next run in %s: %s", folder.parent, error)
            return model
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder / "model.xml"


def _verified(described: Artifact, choice: Choice) -> bool:
    return str(choice) == "tensorflow/float32" or bool(described.engines.get(str(choice), {}).get("within_tolerance"))


def _runs_well_here(choice: Choice) -> bool:
    if choice.engine == "tensorflow":
        return True
    if not _has_openvino() or _has_gpu():
        return False
    return choice.precision == "float32" or "BF16" in _cpu_capabilities()


def _runs_anywhere(choice: Choice, engine: str, precision: str) -> bool:
    return choice.engine == "tensorflow" or (choice.engine == engine and choice.precision in ("float32", precision))


@contextlib.contextmanager
def _native_stderr_held_back() -> Iterator[None]:
    """Keeps back what C++ writes to stderr before any log level applies to it, and gives it out when the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@functools.cache
def _cpu_capabilities() -> tuple[str, ...]:
    import openvino

    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _has_gpu() -> bool:
    return pathlib.Path("/dev/nvidia0").exists()
