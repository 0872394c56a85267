"""Import Apache Beam without the clients of services that a run on this machine never calls."""

import contextlib
import sys
from collections.abc import Iterator

_UNUSED = ("apache_beam.io.gcp.bigquery", "bson")
"""Modules that Beam does without where they are not installed: its own reader and writer for
BigQuery, which bring the clients of BigQuery and Pub/Sub, and the client of MongoDB.
"""


@contextlib.contextmanager
def skip_unused_clients() -> Iterator[None]:
    """Let imports of these clients fail within the block, as if they were not installed.

    They take a quarter of the time that importing Beam takes. Afterwards they can be imported.
    """
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
