"""Wait for the result of another command, so that both can be started together."""

import time

from absl import logging

from trainer import storage
from trainer.artifact import MODEL_JSON
from trainer.dataset.locate import locate
from trainer.errors import DataError, StorageOutageError

INTERVAL = 10.0


def wait(data_dir: str | None, model: str | None, seconds: float) -> None:
    """Return once `data_dir` holds a prepared data set or, if it is None, `model` an artifact.

    Args:
      seconds: the longest time to wait.

    Raises:
      ConfigError: `data_dir` holds several data sets.
      DataError: the time is over.
    """
    end = time.monotonic() + seconds
    is_logged = False
    while not _is_there(data_dir, model):
        if time.monotonic() >= end:
            maker = f"humerus-prepare --data_dir={data_dir}" if data_dir else "humerus-train"
            raise DataError(
                f"{data_dir or model} holds nothing after {seconds / 3600:g} hours; "
                f"check whether {maker} still runs"
            )
        if not is_logged:
            logging.info("Waiting for %s.", data_dir or model)
            is_logged = True
        time.sleep(min(INTERVAL, max(0.0, end - time.monotonic())))


def _is_there(data_dir: str | None, model: str | None) -> bool:
    try:
        return bool(locate(data_dir)) if data_dir else storage.exists(f"{model}/{MODEL_JSON}")
    except (DataError, StorageOutageError):
        return False
