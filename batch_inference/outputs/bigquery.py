"""Load rows into BigQuery: create and check the tables before a run, and fill them after it.

Each table has one load job. Its name depends on the output, the table, its creation time and the
rows. So BigQuery loads the same rows once, however often a run is resumed.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.coders import BytesCoder
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference.composite import composite
from batch_inference.outputs import row_files, row_shards, schema
from batch_inference.outputs.schema import Column
from batch_inference.storage import filesystem, gcs, storage_errors
from trainer.errors import ConfigError, DataError

TEMPORARY = "beam-temp-bigquery"
_NAME = re.compile(
    r"(?P<project>(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+:)?[a-z][a-z0-9-]*)[:.](?P<dataset>\w+)", re.ASCII
)
_FORBIDDEN_IN_COLUMNS = re.compile(r"""[!"$()*,./;?@\[\\\]^`{}~]""")
_NO_ROWS = "0"
_OTHER_NAMES = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The dataset of the tables `predictions`, `studies` and `rejections`."""

    project: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Dataset":
        """Read `project:dataset` or `project.dataset`; raise `ConfigError` for anything else."""
        found = _NAME.fullmatch(text)
        if not found:
            raise ConfigError(f"--bigquery={text}: expected PROJECT:DATASET or PROJECT.DATASET")
        return cls(found["project"], found["dataset"])

    def __str__(self) -> str:
        return f"{self.project}:{self.name}"


def choose_temporary_folder(options: PipelineOptions, output: str) -> str:
    """Return the folder that load jobs read: in Beam's `--temp_location`, else in the output.

    An output of the same path on another machine has another folder.

    Raises:
      ConfigError: it would not be on Cloud Storage.
    """
    given = options.get_all_options()["temp_location"]
    machine = "" if filesystem.is_remote(output) else socket.gethostname()
    folder = (
        filesystem.join(given, f"humerus-{_digest(machine, output)}")
        if given
        else filesystem.join(output, TEMPORARY)
    )
    if not folder.startswith("gs://"):
        raise ConfigError(
            "--bigquery loads rows from Cloud Storage; add --temp_location=gs://BUCKET/FOLDER"
        )
    return folder


def prepare(dataset: Dataset, tables: Mapping[str, Sequence[Column]], folder: str) -> None:
    """Create the missing tables and check the others, so that mistakes show before the run.

    Args:
      dataset: where the tables are.
      tables: columns by name of the table.
      folder: URI where rows are to be staged; what an earlier attempt left there is deleted.

    Raises:
      ConfigError: there is no access or no such dataset, or these rows do not fit a table.
      StorageOutageError: BigQuery does not answer.
    """
    # Imported here, as it takes a second that runs without BigQuery need not wait.
    from google.cloud import bigquery

    what, advice = (
        f"--bigquery={dataset} cannot be written to",
        "check the names of project and dataset, and access",
    )
    with storage_errors.explain_failure(ConfigError, what, advice), _translate_errors():
        client = bigquery.Client(project=dataset.project)
        for name, table in tables.items():
            _check_names(table)
            address = f"{dataset.project}.{dataset.name}.{name}"
            made = bigquery.Table(address, schema=_list_fields(table))
            found = client.create_table(made, exists_ok=True)
            there = {
                field.name.casefold(): _OTHER_NAMES.get(field.field_type, field.field_type)
                for field in found.schema
            }
            for field in schema.to_bigquery(table):
                if there.get(field["name"].casefold(), field["type"]) != field["type"]:
                    raise ConfigError(
                        f"--bigquery={dataset}: the table {name} holds {field['name']} as "
                        f"{there[field['name'].casefold()]}, these rows hold it as "
                        f"{field['type']}; name another dataset"
                    )
    with storage_errors.explain_failure(
        ConfigError, f"{folder} cannot be emptied", "check --temp_location and access"
    ):
        filesystem.delete(folder)


def load(
    dataset: Dataset, tables: Mapping[str, Sequence[Column]], folder: str, output: str
) -> None:
    """Append the staged rows to the tables, unless an earlier attempt at this output has done so.

    Args:
      dataset: where the tables are.
      tables: columns by name of the table.
      folder: URI where the rows are staged.
      output: URI of the run's output.

    Raises:
      DataError: BigQuery refuses rows.
      StorageError: BigQuery does not answer.
    """
    from google.cloud import bigquery

    client = bigquery.Client(project=dataset.project)
    for name, table in tables.items():
        rows = filesystem.read(filesystem.join(folder, f"{name}.sum")).decode()
        if rows == _NO_ROWS:
            continue
        uris = [
            filesystem.join(folder, file)
            for file in filesystem.names(folder)
            if row_files.parse_name(file) == (name, "jsonl")
        ]
        job = bigquery.LoadJobConfig(
            schema=_list_fields(table),
            source_format="NEWLINE_DELIMITED_JSON",
            write_disposition="WRITE_APPEND",
            schema_update_options=["ALLOW_FIELD_ADDITION"],
        )
        try:
            with _translate_errors():
                target = client.get_table(f"{dataset.project}.{dataset.name}.{name}")
                _load_once(
                    client,
                    uris,
                    target,
                    job,
                    f"humerus-{name}-{_digest(output, str(dataset), str(target.created), rows)}",
                )
        except storage_errors.StorageError as error:
            kind = storage_errors.StorageError if error.temporary else DataError
            advice = "the same command with --resume loads them without scoring again"
            raise kind(f"BigQuery did not take the {name} ({error}); {advice}") from error


def _list_fields(table: Sequence[Column]) -> list[Any]:
    """Return the schema of a table as the client takes it."""
    from google.cloud import bigquery

    return [bigquery.SchemaField.from_api_repr(field) for field in schema.to_bigquery(table)]


def _load_once(client: Any, uris: Sequence[str], target: Any, job: Any, identity: str) -> None:
    """Run a load job, unless one of that name has succeeded.

    A failed job loads nothing, and its name can't be used again; so names end in a number.
    """
    from google.api_core.exceptions import Conflict

    for number in itertools.count():
        named = {"job_id": f"{identity}-{number}", "location": target.location}
        try:
            client.load_table_from_uri(uris, target, job_config=job, **named).result()
            return
        except Conflict:
            if client.get_job(**named).exception() is None:
                logging.info("%s holds these rows already", target)
                return


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise a `StorageError` with BigQuery's message for any error of Google's clients."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        message = " ".join(str(getattr(error, "message", None) or error).split())[:300]
        raise storage_errors.StorageError(message, gcs.is_temporary(error)) from error


def _check_names(table: Sequence[Column]) -> None:
    """Raise `ConfigError` for a name that BigQuery allows no column to have."""
    for column in table:
        if _FORBIDDEN_IN_COLUMNS.search(column.name) or len(column.name) > 300:
            raise ConfigError(
                f"BigQuery does not accept a column named {column.name}; rename it in the manifest"
            )


@composite
def Stage(rows: beam.PCollection, folder: str, name: str) -> None:
    """Write predictions, studies or rejections as JSON lines for `load`.

    It also writes a sum over hashes of the rows, which names the load job and is the same in any
    order.

    Args:
      folder: on Cloud Storage.
      name: of the table.
    """
    prefix = filesystem.join(folder, name)
    lines = rows | "Record" >> beam.Map(
        lambda row: row_shards.format_json(schema.to_record(row))
    ).with_output_types(bytes)
    lines | "Write" >> beam.io.WriteToText(f"{prefix}.jsonl", coder=BytesCoder())
    (
        lines
        | "Hash"
        >> beam.Map(
            lambda line: int.from_bytes(hashlib.blake2b(line, digest_size=7).digest(), "big") + 1
        )
        | "Sum" >> beam.CombineGlobally(lambda hashes: sum(hashes) % (1 << 61))
        | "Write sum"
        >> beam.Map(lambda total: filesystem.write(f"{prefix}.sum", str(total).encode()))
    )


def _digest(*parts: str) -> str:
    """Return 32 hexadecimal digits that name these texts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:32]
