"""Loads the engine of a run in a thread, while the rest of the program starts.

Importing Beam takes as long as loading an engine, so nothing here imports Beam.
"""

import concurrent.futures
import dataclasses
import os
import pathlib

from batch_inference.options import Options
from trainer import artifact, machine
from trainer.artifact import ONE_PASS_METHOD
from trainer.inference import engine_choice, engines, openvino_engine


@dataclasses.dataclass(frozen=True)
class Request:
    """The engine that a run needs.

    Attributes:
      model: URI of the artifact, or its path.
      model_id: id of the artifact.
      choice: engine and precision.
      batch_size: number of images that the network takes at once.
      method: method of the maps.
    """

    model: str
    model_id: str
    choice: engines.Choice
    batch_size: int
    method: str = ONE_PASS_METHOD


_begun: list[concurrent.futures.Future[tuple[Request, engines.Engine] | None]] = []
"""The load that `begin` began and no handler has taken yet; at most one."""


def begin(options: Options) -> None:
    """Start to load the engine that the options name, if this process is sure to run it.

    It is sure with a local model, OpenVINO and no options of Beam. TensorFlow isn't loaded ahead:
    its import would only compete with that of Beam. Mistakes in the options are reported when the
    run is planned, not here.
    """
    _begun.clear()
    if options.beam or "://" in options.model or not machine.has_packages("openvino"):
        return
    openvino_engine.import_openvino()
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="load-engine")
    _begun.append(executor.submit(_load, options))
    executor.shutdown(wait=False)


def take(request: Request) -> engines.Engine | None:
    """Return the engine that `begin` loaded, once; None if that is not the requested one.

    It is None too where loading failed: the handler then tries again, and its error says why.
    """
    if not _begun:
        return None
    loading = _begun.pop()
    loaded = None if loading.exception() else loading.result()
    return loaded[1] if loaded and loaded[0] == request else None


def _load(options: Options) -> tuple[Request, engines.Engine] | None:
    model = os.path.normpath(pathlib.Path(options.model).expanduser().absolute())
    described = artifact.load(model)
    named = engine_choice.resolve_method(options.method, options.engine, options.precision)
    choice = engine_choice.choose(described, *named)
    if choice.engine != "openvino":
        return None
    engine = engines.load(
        pathlib.Path(model), described, choice, options.batch_size, machine.cache_folder()
    )
    request = Request(model, described.model_id, choice, options.batch_size, options.method)
    return request, engine
