"""`humerus-score` in a process whose BigQuery is the double at $BIGQUERY_EMULATOR_HOST; Beam's own client knows no such variable."""

import os
import sys

from apache_beam.io.gcp.internal.clients.bigquery import BigqueryV2

from batch_inference.main import score

if __name__ == "__main__":
    BigqueryV2.BASE_URL = f"{os.environ['BIGQUERY_EMULATOR_HOST']}/bigquery/v2/"
    sys.exit(score())
