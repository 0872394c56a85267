"""Contain what the DICOM libraries raise, warn of and log: it quotes values of the data set."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

from trainer.decoding.refusal import RadiographError

_LOGGERS = ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "libjpeg", "jpeg_ls", "rle")


class _LibraryMute:
    """Mute the libraries, which quote the data set, while any thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._muted = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._muted.enter_context(_mute_libraries())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._muted.close()


_library_mute = _LibraryMute()


@contextlib.contextmanager
def contain_errors() -> Iterator[None]:
    """Turn errors of the libraries into a RadiographError that quotes nothing; mute their logs."""
    with _library_mute:
        try:
            yield
        except (RadiographError, MemoryError):
            raise
        except BaseException as error:
            # Panics of the RLE plug-in (Rust) are a BaseException, whose type cannot be imported.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise RadiographError(
                "bad_dicom", "the DICOM data are damaged: an element is not what its type says"
            ) from None


@contextlib.contextmanager
def _mute_libraries() -> Iterator[None]:
    """Keep warnings and log lines of pydicom and its plug-ins, which quote values, out of logs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = [(logger, logger.handlers, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.handlers, logger.propagate = [logging.NullHandler()], False
        try:
            yield
        finally:
            for logger, handlers, propagate in kept:
                logger.handlers, logger.propagate = handlers, propagate
