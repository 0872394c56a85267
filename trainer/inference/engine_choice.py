"""Chooses the engine that scores: the fastest one here that the artifact records as verified."""

from absl import logging

from trainer import machine
from trainer.artifact import ONE_PASS_METHOD, Artifact
from trainer.errors import ConfigError
from trainer.inference import engines
from trainer.inference.engines import Choice

_PACKAGES = {"openvino": ("openvino", "cpu"), "onnx": ("onnxruntime", "onnx")}
"""Package that an engine needs, and the extra that installs it."""


def choose(
    described: Artifact, engine: str = "auto", precision: str = "auto", runs_here: bool = True
) -> Choice:
    """Return the fastest engine here that the artifact records as within tolerance.

    On other machines, whose processors and packages are unknown, that is TensorFlow, which every
    worker has.

    Args:
      described: the model's artifact.
      engine: the engine to use, or `auto`. A named engine is used even if it is not verified.
      precision: the precision to use, or `auto`.
      runs_here: whether the workers are on this machine.

    Raises:
      ConfigError: what was asked for cannot run here, or no verified engine has that precision.
    """
    candidates = [
        c
        for c in engines.CHOICES
        if engine in ("auto", c.engine) and precision in ("auto", c.precision)
    ]
    if not candidates:
        known = [c.precision for c in engines.CHOICES if engine in ("auto", c.engine)]
        if not known:
            names = dict.fromkeys(c.engine for c in engines.CHOICES)
            raise ConfigError(f"--engine={engine}: expected one of auto, {', '.join(names)}")
        raise ConfigError(
            f"--engine={engine} has no --precision={precision}; expected one of auto,"
            f" {', '.join(dict.fromkeys(known))}"
        )
    package, extra = _PACKAGES.get(engine, ("", ""))
    if runs_here and package and not machine.has_packages(package):
        raise ConfigError(
            f"--engine={engine} needs the package {package}; {machine.advise_extra(extra)}"
        )
    is_suitable = (
        engines.is_suitable
        if runs_here
        else lambda choice: _runs_anywhere(choice, engine, precision)
    )
    fit = [
        choice for choice in candidates if _is_verified(described, choice) and is_suitable(choice)
    ]
    if fit:
        return max(fit, key=lambda choice: _rank(described, choice))
    if engine == "auto":
        raise ConfigError(
            f"no engine with --precision={precision} is recorded in the artifact as verified and "
            "runs well here; verify it with humerus-verify, or name one with --engine to force it"
        )
    return _force(described, candidates, precision)


def log_advice(described: Artifact, choice: Choice, engine: str, runs_here: bool) -> None:
    """Log what would be faster than the engine that is used, or that it is not verified."""
    if (
        engine == "auto"
        and runs_here
        and not machine.has_packages("openvino")
        and not machine.has_gpu()
    ):
        logging.info("scoring would be faster with OpenVINO; %s", machine.advise_extra("cpu"))
    if not _is_verified(described, choice):
        recorded = (
            "records that it differs from TensorFlow"
            if str(choice) in described.engines
            else "does not record it as verified"
        )
        logging.warning("%s is used as asked; the artifact %s", choice, recorded)


def resolve_method(method: str, engine: str, precision: str) -> tuple[str, str]:
    """Return the engine and precision that a map's method leaves to choose from.

    One-pass Grad-CAM runs on every engine, any other method on TensorFlow alone.

    Raises:
      ConfigError: the method needs another engine or precision than those named.
    """
    if method == ONE_PASS_METHOD:
        return engine, precision
    if engine not in ("auto", engines.REFERENCE.engine) or precision not in (
        "auto",
        engines.REFERENCE.precision,
    ):
        raise ConfigError(
            f"--method={method} needs gradients, which only {engines.REFERENCE} has; "
            "omit --engine and --precision"
        )
    return engines.REFERENCE.engine, engines.REFERENCE.precision


def _force(described: Artifact, candidates: list[Choice], precision: str) -> Choice:
    """Return the named engine, though unverified: by default in its most precise arithmetic."""
    choice = next(
        (c for c in candidates if c.precision == ("float32" if precision == "auto" else precision)),
        candidates[-1],
    )
    file = engines.NETWORK_FILES.get(str(choice))
    if file is not None and file not in described.files:
        raise ConfigError(
            f"the artifact holds no network for {choice}; make it with humerus-verify "
            f"--model=ARTIFACT --data_dir=DIR and the extra `{_PACKAGES[choice.engine][1]}`"
        )
    return choice


def _is_verified(described: Artifact, choice: Choice) -> bool:
    """Return whether the artifact records the engine as within tolerance."""
    return choice == engines.REFERENCE or bool(
        described.engines.get(str(choice), {}).get("within_tolerance")
    )


def _rank(described: Artifact, choice: Choice) -> tuple[float, int]:
    """Return what orders the engines: speed, if measured on a device like this, then `CHOICES`."""
    record = described.engines.get(str(choice), {})
    comparable = record.get("device") == ("GPU" if machine.has_gpu() else "CPU")
    return (record.get("images_per_second", 0.0) if comparable else 0.0), -engines.CHOICES.index(
        choice
    )


def _runs_anywhere(choice: Choice, engine: str, precision: str) -> bool:
    """Return whether workers of unknown machines can run the engine, as far as one may assume."""
    if choice.engine == "tensorflow":
        return choice.precision in ("float32", precision)
    return choice.engine == engine and choice.precision in ("float32", precision)
