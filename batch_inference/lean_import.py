"""Import Apache Beam and build its pipelines without what a run on this machine never needs."""

import contextlib
import functools
import gc
import sys
from collections.abc import Iterator

_UNUSED = (
    "apache_beam.io.gcp.bigquery",
    "apitools",
    "bson",
    "google.cloud.dataflow",
    "pandas",
)
"""Modules that Beam does without where they are not installed: its own reader and writer for
BigQuery, which bring the clients of BigQuery and Pub/Sub, the client of Dataflow and the library of
older ones, the client of MongoDB, and pandas.
"""


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Disable garbage collection in the block; afterwards freeze the objects that it created.

    Imported modules live until the process ends. Searching them for garbage takes a tenth of the
    time of their import, and later collections would search them again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def skip_unused_clients() -> contextlib.AbstractContextManager[None]:
    """Make imports of the modules in `_UNUSED` fail in the block, as if they were not installed.

    They take half of the time of Beam's import. After the block they can be imported.
    """
    return _hide(*_UNUSED)


def skip_ipython() -> contextlib.AbstractContextManager[None]:
    """Make imports of IPython fail in the block, unless it is running.

    Beam imports it while it builds a pipeline, to find out whether it runs in a notebook.
    """
    return _hide("IPython")


@contextlib.contextmanager
def inspect_each_step_once() -> Iterator[None]:
    """Cache, in the block, the state and timers that Beam finds in a step (`DoFn`).

    Beam searches all methods of a step for them several times: while it builds a pipeline, and in
    each stage. That takes half a second of a run.
    """
    from apache_beam.transforms import userstate

    inspect = userstate.get_dofn_specs
    userstate.get_dofn_specs = functools.lru_cache(maxsize=256)(inspect)
    try:
        yield
    finally:
        userstate.get_dofn_specs = inspect


@contextlib.contextmanager
def _hide(*names: str) -> Iterator[None]:
    """Make imports of modules fail in the block, as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
