"""Runs engines behind Beam's `ModelHandler`: batches of one shape, failures of single images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from batch_inference.outputs.records import Example, Rejection, Scored, reject_example
from batch_inference.scoring import engine_loading, model_copy
from trainer import machine
from trainer.inference import engines


class ScoringHandler(ModelHandler[Example, Scored | Rejection, engines.Engine]):
    """Scores examples, with one result for each, in their order.

    Beam's `RunInference` rejects a whole batch for one bad element; here, only an image on which
    the model fails becomes a `Rejection`.
    """

    def __init__(self, request: engine_loading.Request):
        """Take what the workers load; smaller batches than the network takes are padded."""
        super().__init__()
        self._request = request

    def load_model(self) -> engines.Engine:
        if (loaded := engine_loading.take(self._request)) is not None:
            return loaded
        path, described = model_copy.fetch(self._request.model)
        return engines.load(
            path,
            described,
            self._request.choice,
            self._request.batch_size,
            machine.cache_folder(),
            self._request.method,
        )

    def run_inference(
        self,
        batch: Sequence[Example],
        model: engines.Engine,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[Scored | Rejection]:
        try:
            outputs = model.run(self._pad(batch))
        except Exception as error:
            # Whatever the engine raises, the batch is halved until the bad image is alone.
            if len(batch) == 1:
                yield self._reject(batch[0], f"{type(error).__name__}: {error}")
                return
            middle = len(batch) // 2
            yield from self.run_inference(batch[:middle], model)
            yield from self.run_inference(batch[middle:], model)
            return
        for example, probability, logit, cam in zip(
            batch, outputs["probability"], outputs["logit"], outputs["cam"], strict=False
        ):
            if np.isfinite(probability) and np.isfinite(logit) and np.isfinite(cam).all():
                yield Scored(example, float(probability), float(logit), cam)
            else:
                yield self._reject(
                    example, f"the model answered probability {probability}, logit {logit}"
                )

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {
            "min_batch_size": self._request.batch_size,
            "max_batch_size": self._request.batch_size,
        }

    def get_num_bytes(self, batch: Sequence[Example]) -> int:
        return sum(example.pixels.nbytes for example in batch)

    def get_metrics_namespace(self) -> str:
        return "humerus"

    def _pad(self, batch: Sequence[Example]) -> np.ndarray:
        """Return uint8 [batch_size, size, size, 1], with zeros for missing images.

        With one shape, engines compile once, and a row does not depend on the size of its batch.
        """
        image = np.zeros((self._request.batch_size, *batch[0].pixels.shape), np.uint8)
        for row, example in zip(image, batch, strict=False):
            row[:] = example.pixels
        return image

    def _reject(self, example: Example, detail: str) -> Rejection:
        return reject_example(example, "inference_failed", detail, self._request.model_id)
