"""Run a serialized pipeline of Beam from a file on the embedded runner, as a worker of Dataflow
does in its container.
"""

import pathlib
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import environments

import batch_inference


def main() -> None:
    graph = beam_runner_api_pb2.Pipeline.FromString(pathlib.Path(sys.argv[1]).read_bytes())
    here = environments.EmbeddedPythonEnvironment.default().to_runner_api(None)
    for environment in graph.components.environments.values():
        environment.CopyFrom(here)
    print(f"program at {pathlib.Path(str(batch_inference.__file__)).parent}")
    FnApiRunner().run_via_runner_api(graph, PipelineOptions([])).wait_until_finish()


if __name__ == "__main__":
    main()
