"""A run on this machine doesn't import clients of services that it never calls."""

import subprocess
import sys

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms import userstate

from batch_inference import lean_import

SPEC = userstate.ReadModifyWriteStateSpec("seen", VarIntCoder())
STATE = beam.DoFn.StateParam(SPEC)
SCRIPT = """
import sys
from batch_inference import lean_import
with lean_import.skip_unused_clients():
    from batch_inference import pipeline
unused = {"google.cloud.bigquery", "google.cloud.pubsub", "google.cloud.dataflow", "apitools"}
unused |= {"pymongo", "pandas", "scipy"}
assert not unused & set(sys.modules), unused & set(sys.modules)
assert "google.cloud.storage" in sys.modules  # a local manifest may name files in buckets
from apache_beam.io.gcp.bigquery import ReadFromBigQuery
from google.cloud import bigquery, dataflow
import bson, pandas
"""


def test_unused_clients_are_left_out_and_can_be_imported_later():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_a_step_is_inspected_once_and_its_state_found():
    class Count(beam.DoFn):
        def process(self, element, state=STATE):
            yield element

    class Inspected(beam.DoFn):
        asked = 0

        def process(self, element):
            yield element

        @property
        def method(self):
            type(self).asked += 1

    original = userstate.get_dofn_specs
    with lean_import.inspect_each_step_once():
        step = Inspected()
        assert [userstate.is_stateful_dofn(step) for _ in range(3)] == [False] * 3
        assert Inspected.asked == 1
        assert userstate.get_dofn_specs(Count()) == ({SPEC}, set())
    assert userstate.get_dofn_specs is original
