"""What one sees of a run under way: a line for every epoch in the log, a bar on a terminal, and TensorBoard."""

import contextlib
import sys
from collections.abc import Mapping

import cv2
import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from trainer import overlay

TRACED_STEPS = 10
"""Steps that `--profile` traces, after as many that warm up."""
_PANEL_SIDE = 224
_LINE = (
    "epoch {epoch}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.3f}  val_loss {val_loss:.4f}  val_accuracy {val_accuracy:.3f}"
    "  val_auroc {val_auroc:.4f}  lr {learning_rate:.2g}  {images_per_second:.1f} images/s  input wait {input_wait:.0%}"
)


class Watch:
    """Of one run; on all but the chief it does nothing."""

    def __init__(self, workdir: str, epochs: int, is_chief: bool, profile: bool = False):
        """`epochs` of all phases; `profile`: trace some of the first steps for TensorBoard's profiler."""
        self._folder = f"{workdir}/tensorboard"
        # Each flush into a bucket takes requests. TensorFlow's defaults would flush after every ten figures, and at the end of every
        # `as_default`, which therefore stays open.
        kept = {"max_queue": 100_000, "flush_millis": 60_000}
        self._writer = (
            tf.summary.create_file_writer(self._folder, **kept)
            if is_chief
            else tf.summary.create_noop_writer()
        )
        self._default = contextlib.ExitStack()
        self._default.enter_context(self._writer.as_default())
        self._epochs = epochs
        self._is_chief = is_chief
        self._bar = tqdm.tqdm(disable=True)
        self._first_step: int | None = (
            None if profile and is_chief else -1
        )  # None before it, -1 when nothing is left to trace
        self._tracing = False

    def begin_epoch(self, epoch: int, step: int, steps: int) -> None:
        """`epoch` from 0; it stands at `step` of `steps`."""
        self._bar = tqdm.tqdm(
            total=steps,
            initial=step,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            unit="step",
            leave=False,
            disable=not (self._is_chief and sys.stderr.isatty()),
        )

    def step(self, step: int, total_steps: int, measured: Mapping[str, float]) -> None:
        """After every call of the device: `step` of the epoch, `total_steps` of the run, and what was measured since the last call."""
        self._bar.update(step - self._bar.n)
        for name, value in measured.items():
            tf.summary.scalar(f"step/{name}", value, total_steps)
        self._trace(total_steps)

    def end_epoch(self, row: Mapping[str, float], total_steps: int, improved: bool) -> None:
        """The epoch's row of the history, as a line in the log and as scalars."""
        self._bar.close()
        if self._is_chief:
            logging.info(
                "%s%s",
                _LINE.format(epochs=self._epochs, **row),
                "  best so far" if improved else "",
            )
        for name, value in row.items():
            tf.summary.scalar(f"epoch/{name}", value, total_steps)

    def flush(self) -> None:
        """What TensorBoard was told so far is kept, even if the process is killed."""
        self._writer.flush()

    def show_validation(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        maps: tuple[np.ndarray, np.ndarray],
        total_steps: int,
    ) -> None:
        """How the two classes come apart, and where the network looks.

        Args:
          logits: float32 [N] of the validation split, with labels int [N].
          maps: images uint8 [B, size, size, 1], and their class activation maps float32 [B, h, w].
        """
        for label, name in enumerate(("negative", "positive")):
            tf.summary.histogram(f"validation/logit_{name}", logits[labels == label], total_steps)
        tf.summary.image("validation/maps", _panel(*maps)[None], total_steps)

    def close(self) -> None:
        """Whatever happened: the bar goes, a trace under way is written."""
        self._bar.close()
        if self._tracing:
            self._stop_tracing()
        elif self._first_step != -1:
            logging.warning(
                "Nothing was traced: --profile begins after %d steps, and there were no more.",
                TRACED_STEPS,
            )
        self._default.close()
        self._writer.close()

    def _trace(self, total_steps: int) -> None:
        if self._first_step is None:
            self._first_step = total_steps
        elif self._tracing and total_steps >= self._first_step + 2 * TRACED_STEPS:
            self._stop_tracing()
        elif (
            self._first_step >= 0
            and not self._tracing
            and total_steps >= self._first_step + TRACED_STEPS
        ):
            tf.profiler.experimental.start(self._folder)
            self._tracing = True

    def _stop_tracing(self) -> None:
        tf.profiler.experimental.stop()
        self._first_step, self._tracing = -1, False
        logging.info("Traced for the profiler: tensorboard --logdir=%s", self._folder)


def _panel(images: np.ndarray, cams: np.ndarray) -> np.ndarray:
    """Overlays side by side, two rows of them: uint8 [height, width, 3] in RGB."""
    scale = max(float(cams.max(initial=0.0)), 1e-6)
    drawn = [
        overlay.draw(
            cv2.resize(image[:, :, 0], (_PANEL_SIDE, _PANEL_SIDE)),
            cam,
            _PANEL_SIDE,
            scale,
            "overlay",
        )
        for image, cam in zip(images, cams, strict=True)
    ]
    drawn += [np.zeros_like(drawn[0])] * (len(drawn) % 2)
    rows = np.vstack([np.hstack(drawn[: len(drawn) // 2]), np.hstack(drawn[len(drawn) // 2 :])])
    return cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
