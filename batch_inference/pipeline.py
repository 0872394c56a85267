"""Score radiographs with Beam: files in; rows, pictures, rejections and a summary out."""

import json
import time
from collections.abc import Sequence

import apache_beam as beam
from absl import logging
from apache_beam.ml.inference.base import RunInference

from batch_inference import preflight, runners
from batch_inference.concurrent_map import PoolSize
from batch_inference.gallery import page
from batch_inference.inputs import manifest, sources, tasks
from batch_inference.inputs.decode_tasks import DecodeTasks
from batch_inference.options import Options
from batch_inference.outputs import (
    bigquery,
    duplicates,
    earlier_files,
    journal,
    label_metrics,
    output_folder,
    progress,
    row_files,
    run_record,
    schema,
    studies,
    summary,
)
from batch_inference.outputs.finish_images import FinishImages
from batch_inference.scoring.engine_loading import Request
from batch_inference.scoring.model_handler import ScoringHandler
from batch_inference.storage import filesystem, gcs, storage_errors
from trainer.artifact import Artifact
from trainer.errors import ConfigError, DataError, RunnerError, StorageOutageError
from trainer.inference import engine_records
from trainer.inference.engines import Choice
from trainer.program import run_lock
from trainer.workers import pool as workers


def build(
    pipeline: beam.Pipeline,
    options: Options,
    described: Artifact,
    choice: Choice,
    attempt: str,
    known: Sequence[str] = (),
) -> None:
    """Add scoring to `pipeline`: every input ends as one prediction or one rejection.

    Args:
      options: what to score, with what, and where to write.
      described: the model's artifact.
      choice: engine and precision.
      attempt: the prefix of the journal's parts that this run writes.
      known: URIs of the journal's parts that earlier attempts wrote.
    """
    output = filesystem.absolute(options.output)
    remote = filesystem.is_remote(output) or filesystem.is_remote(options.input)
    pool = PoolSize.choose(options.batch_size, remote)
    model = filesystem.absolute(options.model)
    engine = engine_records.identify(described, str(choice))
    request = Request(model, described.model_id, choice, options.batch_size, options.method)

    found = pipeline | sources.FindInputs(options)
    oversized = found | tasks.FindOversizedFolders(options.study_key)
    earlier = pipeline | journal.ReadEarlierEntries(known)
    files = None
    if options.resume and (options.cam != "none" or options.dicom):
        files = pipeline | earlier_files.FindFiles(options)
        earlier = (earlier, files) | earlier_files.KeepWithFiles()
    examples, undecoded, kept = (
        (found, earlier) | tasks.MakeTasks(oversized) | DecodeTasks(options, described, pool)
    )
    scored, unscored = (
        examples
        | "Score" >> RunInference(ScoringHandler(request))
        | FinishImages(options, described, engine, attempt, pool)
    )
    parts = {
        "new": scored,
        journal.KEPT: kept,
        "undecoded": undecoded,
        "unscored": unscored,
    } | journal.WriteJournal(output, attempt)

    predictions, once_per_study = parts | duplicates.ReadAndMarkPredictions()
    rejections = parts | "Read rejections" >> beam.FlatMap(journal.read_rejections)
    rows = {
        "predictions": predictions,
        "studies": once_per_study | studies.AverageStudies(described),
        "rejections": rejections,
    }
    for name, table in schema.list_tables(manifest.read_carried_columns(options.input)).items():
        rows[name] | f"Write {name}" >> row_files.WriteRows(output, name, table, options.format)
        if options.bigquery:
            folder = bigquery.choose_temporary_folder(pipeline.options, output)
            rows[name] | f"Stage {name}" >> bigquery.Stage(folder, name)
    (predictions, rejections) | summary.WriteSummary(
        output,
        described,
        {
            "engine": engine,
            "engine_reason": engine_records.explain(described.engines, str(choice)),
        },
        oversized,
    )
    if files is not None:
        (files, predictions) | earlier_files.DeleteUnnamedFiles(output)


def run(options: Options) -> summary.Summary:
    """Score a whole input and wait for the end.

    Raises:
      ConfigError: options contradict each other or the machine, or the output is taken or cannot
        be written.
      ArtifactError: `options.model` is not a model that this version can score with.
      DataError: there is nothing to score, nothing was scored, more files were rejected than
        allowed, or BigQuery refuses rows.
      StorageOutageError: the storage does not answer when the run begins.
      UnwritableError: no more results can be written.
      RunnerError: another runner than the embedded one failed.
    """
    plan = preflight.plan(options)
    with run_lock.hold(plan.output, "humerus-score", gcs.client):
        return _score(options, plan)


def _score(options: Options, plan: preflight.Plan) -> summary.Summary:
    """Score what was planned, as `run` describes."""
    output, described = plan.output, plan.described
    tables = schema.list_tables(manifest.read_carried_columns(options.input))
    if options.bigquery:
        dataset = bigquery.Dataset.parse(options.bigquery)
        staged = bigquery.choose_temporary_folder(plan.beam_options, output)
        bigquery.prepare(dataset, tables, staged)
    output_folder.claim(output, plan.record, options.resume, options.overwrite)
    with storage_errors.explain_failure(
        ConfigError, f"--output={output} cannot be read", "check access"
    ):
        known = journal.list_parts(output) if options.resume else []
    attempt = journal.name_attempt(known)
    logging.info(
        "scoring %s with model %s: %s",
        plan.shown,
        described.model_id,
        engine_records.explain(described.engines, str(plan.choice)),
    )
    start = time.monotonic()
    try:
        in_this_process = plan.workers is runners.Workers.THREADS
        with (
            workers.shared().stop_on_error(),
            progress.show(plan.inputs, in_this_process),
            beam.Pipeline(options=plan.beam_options) as pipeline,
        ):
            build(pipeline, options, described, plan.choice, attempt, known)
        row_files.move_into_place(output)
        if options.resume and options.cam_store == "parquet":
            earlier_files.delete_drawn_pictures(output)
        kept = journal.count_written(pipeline.result, journal.KEPT) if known else 0
        seconds = time.monotonic() - start
        measured = None
        if manifest.has_labels(options.input):
            measured = label_metrics.measure(
                filesystem.absolute(options.input), output, attempt, described
            )
        finished = _complete_summary(output, seconds, kept, measured)
        journal.keep_only(output, attempt)
        if options.bigquery:
            bigquery.load(dataset, tables, staged, output)
            filesystem.delete(staged)
        plan.record.write(output, finished=True)
        _write_gallery(output)
    except Exception as error:
        embedded = runners.is_embedded(plan.beam_options)
        raise (_explain(error, output, embedded) or error) from error
    for caution in finished.content["cautions"]:
        if caution not in described.cautions():  # what this run showed
            logging.warning("%s", caution)
    _check_rejections(finished, options.max_rejection_rate)
    return finished


def _explain(error: Exception, output: str, embedded: bool) -> Exception | None:
    """Return an error that says what the user can do; None where there is nothing to add."""
    if reason := storage_errors.find_write_failure(error):
        return storage_errors.UnwritableError(
            f"the results cannot be written to {output} ({reason}). Images whose rows "
            "were written are kept: fix that, then run the same command with --resume to continue"
        )
    if type(error) in (ConfigError, DataError):
        return type(error)(str(error).partition(" [while running")[0])  # which Beam adds
    if not embedded and not isinstance(error, OSError | DataError):
        message = " ".join(str(error).split())[:400]
        return RunnerError(
            f"the runner failed ({message}); run the same command with --resume to continue"
        )
    return None


def _complete_summary(
    output: str, seconds: float, kept: int, measured: label_metrics.Measured | None
) -> summary.Summary:
    """Add to `summary.json` what only this process knows: the run's time and speed, and what the
    labels of the manifest say, if it has any."""
    uri = filesystem.join(output, output_folder.SUMMARY_JSON)
    content = json.loads(filesystem.read(uri))
    content |= {
        "seconds": round(seconds, 3),
        "images_per_second": round((content["inputs"] - kept) / seconds, 2),
    }
    if measured:
        content["metrics"] = measured.metrics
        content["cautions"] += measured.cautions
    run_record.write_json(uri, content)
    return summary.Summary(output, content, kept)


def _write_gallery(output: str) -> None:
    """Write the gallery page; where that fails, the results are complete without it."""
    try:
        page.write(page.GalleryOptions(output, overwrite=True))
    except (DataError, StorageOutageError, storage_errors.StorageError) as error:
        logging.warning("%s was not written: %s", output_folder.GALLERY_HTML, error)


def _check_rejections(finished: summary.Summary, allowed: float) -> None:
    """Raise `DataError` where nothing was scored or a larger share rejected than `allowed`."""
    content = finished.content
    reasons = summary.format_counts(content["rejections"])
    if not content["scored"]:
        raise DataError(
            f"none of the {content['inputs']} files could be scored ({reasons}); "
            f"see rejections.* in {finished.output}"
        )
    if content["rejected"] > allowed * content["inputs"]:
        raise DataError(
            f"{content['rejected']} of {content['inputs']} files were rejected ({reasons}), "
            f"more than --max_rejection_rate={allowed} allows; "
            f"the results of the others are in {finished.output}"
        )
