"""A run on this machine doesn't import clients of services that it never calls."""

import subprocess
import sys

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
