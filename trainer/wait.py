"""Until another command's result is there: what starts together need not be started in order."""

import time

from absl import logging

from trainer import storage
from trainer.artifact import MODEL_JSON
from trainer.dataset.locate import locate
from trainer.errors import DataError

_INTERVAL = 10.0


def wait(data_dir: str | None, model: str | None, seconds: float) -> None:
    """Returns as soon as there is a prepared data set in `data_dir` or, where none is named, an artifact in `model`.

    Args:
      seconds: to wait at most.

    Raises:
      ConfigError: several data sets are there.
      DataError: it didn't come.
    """
    end = time.monotonic() + seconds
    told = False
    while not _is_there(data_dir, model):
        if time.monotonic() >= end:
            maker = f"humerus-prepare --data_dir={data_dir}" if data_dir else "humerus-train"
            raise DataError(
                f"{data_dir or model} holds nothing after {seconds / 3600:g} hours; see what became of {maker}"
            )
        if not told:
            logging.info("Waiting for %s.", data_dir or model)
            told = True
        time.sleep(min(_INTERVAL, max(0.0, end - time.monotonic())))


def _is_there(data_dir: str | None, model: str | None) -> bool:
    try:
        return bool(locate(data_dir)) if data_dir else storage.exists(f"{model}/{MODEL_JSON}")
    except (DataError, storage.StorageOutageError):
        return False
