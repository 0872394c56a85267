"""Report the progress of a run: a log line for each epoch, a bar on a terminal, TensorBoard."""

import contextlib
import math
import sys
from collections.abc import Mapping

import cv2
import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from trainer.drawing import overlay

TRACED_STEPS = 10
"""Steps that `--profile` traces, after as many that warm up."""
_PANEL_SIDE = 224
_LINE = (
    "epoch {epoch}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.3f}  val_loss {val_loss:.4f}"
    "  val_accuracy {val_accuracy:.3f}  val_auroc {val_auroc:.4f}  lr {learning_rate:.2g}"
)
_SPEED = "  {images_per_second:.1f} images/s  input wait {input_wait:.0%}"


class ProgressReporter:
    """Reports one run; on all hosts but the chief it does nothing."""

    def __init__(self, workdir: str, epochs: int, is_chief: bool, trace: bool = False):
        """Open TensorBoard's files.

        Args:
          epochs: number of epochs of all phases together.
          trace: trace some of the first steps for TensorBoard's profiler.
        """
        self._folder = f"{workdir}/tensorboard"
        # Each flush into a bucket takes requests. By default TensorFlow flushes after every ten
        # values, and at the end of every `as_default`, which therefore stays open.
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
        self._trace = _Trace(self._folder) if trace and is_chief else None

    def begin_epoch(self, epoch: int, step: int, steps: int) -> None:
        """Show the bar of an epoch, from 0, of which `step` of `steps` are finished."""
        self._bar = tqdm.tqdm(
            total=steps,
            initial=step,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            unit=" steps",
            leave=False,
            disable=not (self._is_chief and sys.stderr.isatty()),
        )

    def report_step(self, step: int, total_steps: int, measured: Mapping[str, float]) -> None:
        """Report a compiled call, of `steps_per_execution` steps.

        Args:
          step: finished steps of the epoch.
          total_steps: finished steps of the run.
          measured: what the call measured, by name.
        """
        self._bar.update(step - self._bar.n)
        for name, value in measured.items():
            tf.summary.scalar(f"step/{name}", value, total_steps)
        if self._trace:
            self._trace.update(total_steps)

    def end_epoch(self, row: Mapping[str, float], total_steps: int, improved: bool) -> None:
        """Report the epoch's row of the history, in the log and to TensorBoard."""
        self._bar.close()
        if self._is_chief:
            # A run that continues at the end of an epoch has measured no step of it.
            form = _LINE if math.isnan(row["images_per_second"]) else _LINE + _SPEED
            line = form.format(epochs=self._epochs, **row)
            logging.info("%s%s", line, "  best so far" if improved else "")
        for name, value in row.items():
            tf.summary.scalar(f"epoch/{name}", value, total_steps)

    def report_validation(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        maps: tuple[np.ndarray, np.ndarray],
        total_steps: int,
    ) -> None:
        """Report how well the two classes are separated, and where the network looks.

        Args:
          logits: float32 [N] of the validation split.
          labels: int [N].
          maps: images uint8 [B, size, size, 1] and their class activation maps float32 [B, h, w].
        """
        for label, name in enumerate(("negative", "positive")):
            tf.summary.histogram(f"validation/logit_{name}", logits[labels == label], total_steps)
        tf.summary.image("validation/maps", _draw_panel(*maps)[None], total_steps)

    def flush(self) -> None:
        """Write what was reported to TensorBoard so far, so that a kill doesn't lose it."""
        self._writer.flush()

    def close(self) -> None:
        """Remove the bar, write a trace that is under way, and close TensorBoard's files."""
        self._bar.close()
        if self._trace:
            self._trace.close()
        self._default.close()
        self._writer.close()


class _Trace:
    """Traces `TRACED_STEPS` steps for TensorBoard's profiler, after as many that warm up."""

    def __init__(self, folder: str):
        self._folder = folder
        self._first_step: int | None = None
        self._is_running = False
        self._is_done = False

    def update(self, total_steps: int) -> None:
        """Start or stop the trace where it is time to, after `total_steps` steps of the run."""
        if self._first_step is None:
            self._first_step = total_steps
        elif self._is_running and total_steps >= self._first_step + 2 * TRACED_STEPS:
            self._stop()
        elif (
            not (self._is_running or self._is_done)
            and total_steps >= self._first_step + TRACED_STEPS
        ):
            tf.profiler.experimental.start(self._folder)
            self._is_running = True

    def close(self) -> None:
        """Stop a trace that is running; warn where nothing was traced."""
        if self._is_running:
            self._stop()
        elif not self._is_done:
            logging.warning(
                "Nothing was traced: --profile begins after %d steps, and there were no more.",
                TRACED_STEPS,
            )

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._is_running, self._is_done = False, True
        logging.info("Traced for the profiler: tensorboard --logdir=%s", self._folder)


def _draw_panel(images: np.ndarray, cams: np.ndarray) -> np.ndarray:
    """Return overlays side by side in two rows, uint8 [height, width, 3] in RGB."""
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
