"""Rows -> BigQuery: tables are made and checked before the run, and filled by Beam's load jobs at its end."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam.io.gcp.bigquery import BigQueryDisposition, BigQuerySchemaUpdateOption, WriteToBigQuery
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference import schema, storage
from batch_inference.schema import Column
from trainer.errors import ConfigError

TEMPORARY = "beam-temp-bigquery"
_NAME = re.compile(r"(?P<project>(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+:)?[a-z][a-z0-9-]*)[:.](?P<dataset>\w+)", re.ASCII)
_FORBIDDEN_IN_COLUMNS = re.compile(r"""[!"$()*,./;?@\[\\\]^`{}~]""")
_OTHER_NAMES = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where the tables `predictions`, `studies` and `rejections` are."""

    project: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Dataset":
        """From `project:dataset` or `project.dataset`; raises `ConfigError` for anything else."""
        found = _NAME.fullmatch(text)
        if not found:
            raise ConfigError(f"--bigquery={text}: expected PROJECT:DATASET or PROJECT.DATASET")
        return cls(found["project"], found["dataset"])

    def __str__(self) -> str:
        return f"{self.project}:{self.name}"


def temporary_folder(options: PipelineOptions, output: str) -> str:
    """Where the load jobs read from: Beam's `--temp_location`, else a folder in an output on Cloud Storage.

    Raises:
      ConfigError: neither is on Cloud Storage.
    """
    folder = options.get_all_options()["temp_location"] or storage.join(output, TEMPORARY)
    if not folder.startswith("gs://"):
        raise ConfigError("--bigquery loads its rows by way of Cloud Storage; add --temp_location=gs://BUCKET/FOLDER")
    return folder


def prepare(dataset: Dataset, tables: Mapping[str, Sequence[Column]]) -> None:
    """Makes the tables that are not there, so that there is one for no rows too, and what forbids it shows before the run.

    Raises:
      ConfigError: no access, no such dataset, or a table or column that these rows do not fit.
    """
    # Imported here: a second, and only for those who load.
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import bigquery

    try:
        client = bigquery.Client(project=dataset.project)
        for name, table in tables.items():
            _check_names(table)
            fields = [bigquery.SchemaField.from_api_repr(field) for field in schema.bigquery(table)]
            made = bigquery.Table(f"{dataset.project}.{dataset.name}.{name}", schema=fields)
            found = client.create_table(made, exists_ok=True)
            there = {field.name.casefold(): _OTHER_NAMES.get(field.field_type, field.field_type) for field in found.schema}
            for field in schema.bigquery(table):
                if there.get(field["name"].casefold(), field["type"]) != field["type"]:
                    raise ConfigError(
                        f"--bigquery={dataset}: the table {name} holds {field['name']} as {there[field['name'].casefold()]}, "
                        f"these rows hold it as {field['type']}; name another dataset"
                    )
    except (GoogleAPICallError, GoogleAuthError) as error:
        said = getattr(error, "message", None) or str(error)
        raise ConfigError(f"--bigquery={dataset} cannot be written to: {' '.join(str(said).split())[:300]}") from error


def refusal(error: Exception) -> str | None:
    """What BigQuery said where a load job failed; None where something else did."""
    found = re.search(
        r"BigQuery job \S+ failed\. Error Result: .*?message: (?P<quote>['\"])(.*?)(?P=quote)", str(error), re.DOTALL
    )
    return found[2] if found else None


def _check_names(table: Sequence[Column]) -> None:
    for column in table:
        if _FORBIDDEN_IN_COLUMNS.search(column.name) or len(column.name) > 300:
            raise ConfigError(f"BigQuery takes no column of the name {column.name}; rename it in the manifest")


class Load(beam.PTransform):
    """Appends rows to a table, in one load job where they are less than BigQuery's limits; new columns are added to it."""

    def __init__(self, dataset: Dataset, name: str, table: Sequence[Column], temporary: str):
        """Takes the dataset, the table's name and columns, and the folder on Cloud Storage that is loaded from."""
        super().__init__()
        self._write = WriteToBigQuery(
            f"{dataset}.{name}",
            schema={"fields": schema.bigquery(table)},
            method=WriteToBigQuery.Method.FILE_LOADS,
            create_disposition=BigQueryDisposition.CREATE_IF_NEEDED,
            write_disposition=BigQueryDisposition.WRITE_APPEND,
            schema_update_options=[BigQuerySchemaUpdateOption.ALLOW_FIELD_ADDITION],
            custom_gcs_temp_location=temporary,
        )

    # Beam takes an annotation of what is returned for a type of elements.
    def expand(self, rows: beam.PCollection):  # type: ignore[no-untyped-def]
        return rows | "Record" >> beam.Map(schema.record) | self._write
