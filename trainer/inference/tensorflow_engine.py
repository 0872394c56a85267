"""Run the SavedModel of an artifact with TensorFlow: the reference for all other engines."""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np

from trainer.program import logging_setup


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
