"""Scoring as a Beam pipeline: files in; rows, pictures, rejections and a summary out."""

import collections
import json
import time
from collections.abc import Sequence

import apache_beam as beam
from absl import logging
from apache_beam.ml.inference.base import RunInference

from batch_inference import preflight, runners
from batch_inference.concurrent_map import ConcurrentFlatMap, ConcurrentMap
from batch_inference.gallery import page
from batch_inference.inference.model_handler import ScoringHandler
from batch_inference.inputs import manifest, sources, study_key, tasks
from batch_inference.inputs.decode import Decode
from batch_inference.options import Options
from batch_inference.outputs import (
    bigquery,
    cam_store,
    duplicates,
    grouping,
    journal,
    output_folder,
    progress,
    resuming,
    row_files,
    schema,
    sinks,
    studies,
    summary,
)
from batch_inference.outputs.records import Example, Rejection
from batch_inference.storage import filesystem
from trainer import overlay
from trainer.artifact import Artifact
from trainer.engines import Choice, usable_cores
from trainer.errors import ConfigError, DataError, RunnerError

# Storage over the network is waited for, not computed.
_REMOTE_THREADS = 32
_KNOWN = "known"


def build(
    pipeline: beam.Pipeline,
    options: Options,
    described: Artifact,
    choice: Choice,
    attempt: str,
    known: Sequence[str] = (),
) -> None:
    """Adds scoring to `pipeline`: every input ends as one prediction or one rejection under `options.output`.

    Args:
      attempt: names the parts of the journal that this run writes.
      known: parts of the journal that earlier attempts wrote.
    """
    output = filesystem.absolute(options.output)
    remembered = (
        pipeline
        | "Earlier parts" >> beam.Create(known)
        | "Remember" >> beam.FlatMap(journal.read_entries)
    )
    left = None
    if options.resume and options.cam != "none":
        ending = (
            ".parquet" if options.cam_store == "parquet" else overlay.FORMATS[options.cam_format]
        )
        left = (
            pipeline
            | "Output" >> beam.Create([output])
            | "Earlier pictures" >> beam.FlatMap(resuming.find_pictures, ending)
        )
        remembered = (remembered, left) | "With picture" >> resuming.KeepWithPicture()
    parts = _score(pipeline, options, described, choice, attempt, remembered)
    # Parts are read as often as rows are needed: what is not read again, the embedded runner keeps in memory.
    copies = (
        parts
        | "Predictions to compare" >> beam.FlatMap(journal.read_predictions)
        | duplicates.FindRepeated()
    )
    predictions, once_per_study = parts | "Duplicates" >> beam.FlatMap(
        lambda part, copies: duplicates.mark_duplicates(journal.read_predictions(part), copies),
        beam.pvalue.AsDict(copies),
    ).with_outputs(duplicates.ONCE, main="all")
    rejections = parts | "All rejections" >> beam.FlatMap(journal.read_rejections)
    _write(predictions, once_per_study, rejections, options, described, choice)
    if left is not None:
        (left, predictions) | "Left over" >> resuming.DeleteUnnamedPictures(output)


def _score(
    pipeline: beam.Pipeline,
    options: Options,
    described: Artifact,
    choice: Choice,
    attempt: str,
    remembered: beam.PCollection,
) -> beam.PCollection:
    """URIs of the parts of the journal that hold all predictions and rejections."""
    output = filesystem.absolute(options.output)
    remote = filesystem.is_remote(output) or filesystem.is_remote(options.input)
    # None: as many as the worker has cores.
    threads = _REMOTE_THREADS if remote else None
    window = options.batch_size + 2 * (threads or usable_cores())
    key = study_key.make_study_key(options.study_key, options.id_salt, options.input)
    decode = Decode(
        described.image_size,
        options.cam != "none",
        described.model_id,
        key,
        options.frames == "all",
    )
    finish = sinks.Finish(
        output,
        described,
        str(choice),
        options.cam,
        options.cam_format,
        options.cam_colours,
        options.cam_min_probability,
    )
    exclude, recursive = options.exclude, options.recursive
    handler = ScoringHandler(
        filesystem.absolute(options.model),
        choice,
        options.batch_size,
        described.model_id,
        options.method,
    )

    found = (
        pipeline
        | "Input" >> beam.Create([filesystem.absolute(options.input)])
        | "Find"
        >> beam.FlatMap(
            lambda location: enumerate(sources.find(location, exclude, recursive, output))
        )
    )
    examples, unprepared, still_good = (
        (found, remembered)
        | "Each once" >> tasks.MakeTasks()
        | "Read and decode" >> beam.ParDo(ConcurrentFlatMap(decode, window, threads))
        | "Decoded?" >> _split(Example, Rejection, journal.Entry)
    )
    results = examples | "Score" >> RunInference(handler)
    if options.cam_store == "parquet":
        encode = ConcurrentMap(
            cam_store.Encode(described, options.cam_min_probability), window, threads
        )
        results = (
            results
            | "Encode" >> beam.ParDo(encode)
            | "Pack" >> beam.ParDo(cam_store.WritePacks(output, attempt))
        )
    scored, unfinished = (
        results
        | "Draw and write" >> beam.ParDo(ConcurrentMap(finish, window, threads))
        | "Scored?" >> _split(journal.Entry, Rejection)
    )
    # Flattened only behind the journal: ahead of it, the embedded runner would hold all back until the last image is scored.
    written = [
        rows | f"Journal of {name}" >> beam.ParDo(journal.Write(output, attempt, name))
        for name, rows in {
            "new": scored,
            _KNOWN: still_good,
            "unread": unprepared,
            "unscored": unfinished,
        }.items()
    ]
    return written | "Parts" >> beam.Flatten() | "Spread parts" >> beam.Reshuffle()


def _write(
    predictions: beam.PCollection,
    once_per_study: beam.PCollection,
    rejections: beam.PCollection,
    options: Options,
    described: Artifact,
    choice: Choice,
) -> None:
    """The files that people and programs read."""
    output = filesystem.absolute(options.output)
    carried = manifest.read_carried_columns(options.input)
    per_study = (
        once_per_study
        | "Of a study" >> beam.Map(lambda row: (row.study, row.probability, row.uri))
        | "By study" >> grouping.GroupCompactly(lambda of_study: of_study[0])
        | "Study"
        >> beam.FlatMapTuple(
            lambda _, packs: studies.average_studies(grouping.unpack(packs), described)
        )
    )
    rows = {"predictions": predictions, "studies": per_study, "rejections": rejections}
    for name, table in schema.list_tables(carried).items():
        rows[name] | name.capitalize() >> row_files.WriteRows(output, name, table, options.format)
        if options.bigquery:
            folder = bigquery.choose_temporary_folder(predictions.pipeline.options, output)
            rows[name] | f"Stage {name}" >> bigquery.Stage(folder, name)
    counts = [
        rows | f"Count {name}" >> beam.CombineGlobally(summary.Count(described))
        for name, rows in (("predictions", predictions), ("rejections", rejections))
    ]
    (
        counts
        | "Counts" >> beam.Flatten()
        | "Count" >> beam.CombineGlobally(lambda counters: sum(counters, collections.Counter()))
        | "Summary" >> beam.Map(lambda counts: summary.make_content(counts, described, str(choice)))
        | "Write summary"
        >> beam.Map(
            lambda content: output_folder.write_json(
                filesystem.join(output, output_folder.SUMMARY_JSON), content
            )
        )
    )


def _split(*kinds: type) -> beam.Partition:
    """Parts a mixed collection by type, in the order given."""
    return beam.Partition(lambda record, _: kinds.index(type(record)), len(kinds))  # type: ignore[arg-type]


def run(options: Options) -> summary.Summary:
    """Scores a whole input and waits for the end.

    Raises:
      ConfigError: options that contradict each other or the machine, an output that is taken or cannot be written.
      ArtifactError: `options.model` is not a model that this version can score with.
      DataError: nothing to score, nothing scored, more rejections than allowed, rows that BigQuery refuses.
      OutageError: the storage does not answer when the run begins; UnwritableError: no more results can be written.
      RunnerError: another runner than the embedded one gave up.
    """
    plan = preflight.plan(options)
    output, described = plan.output, plan.described
    tables = schema.list_tables(manifest.read_carried_columns(options.input))
    if options.bigquery:
        dataset, staged = (
            bigquery.Dataset.parse(options.bigquery),
            bigquery.choose_temporary_folder(plan.beam_options, output),
        )
        bigquery.prepare(dataset, tables, staged)
    output_folder.claim(output, plan.record, options.resume, options.overwrite)
    with filesystem.refusing(ConfigError, f"--output={output} cannot be read", "check access"):
        known = journal.list_parts(output) if options.resume else []
    attempt = journal.name_attempt(known)
    logging.info("scoring %s with model %s on %s", options.input, described.model_id, plan.choice)
    start = time.monotonic()
    try:
        here = plan.workers is runners.Workers.THREADS
        with (
            progress.show(plan.inputs, here),
            beam.Pipeline(options=plan.beam_options) as pipeline,
        ):
            build(pipeline, options, described, plan.choice, attempt, known)
        row_files.move_into_place(output)
        kept = journal.count_written(pipeline.result, _KNOWN) if known else 0
        finished = _complete_summary(output, time.monotonic() - start, kept)
        journal.keep_only(output, attempt)
        if options.bigquery:
            bigquery.load(dataset, tables, staged, output)
            filesystem.delete(staged)
        plan.record.write(output, finished=True)
        _write_gallery(output)
    except Exception as error:
        raise (
            _explained(error, output, runners.is_embedded(plan.beam_options)) or error
        ) from error
    _check_rejections(finished, options.max_rejection_rate)
    return finished


def _explained(error: Exception, output: str, embedded: bool) -> Exception | None:
    """What a user can do something about, in a sentence."""
    if reason := filesystem.unwritable(error):
        return filesystem.UnwritableError(
            f"the results cannot be written to {output} ({reason}); what was scored is kept: "
            "when that is put right, the same command with --resume goes on from there"
        )
    if not embedded and not isinstance(error, OSError | DataError):
        said = " ".join(str(error).split())[:400]
        return RunnerError(f"the runner gave up ({said}); the same command with --resume goes on")
    return None


def _complete_summary(output: str, seconds: float, kept: int) -> summary.Summary:
    uri = filesystem.join(output, output_folder.SUMMARY_JSON)
    content = json.loads(filesystem.read(uri))
    content |= {
        "seconds": round(seconds, 3),
        "images_per_second": round((content["inputs"] - kept) / seconds, 2),
    }
    output_folder.write_json(uri, content)
    return summary.Summary(output, content, kept)


def _write_gallery(output: str) -> None:
    """Writes the page to look through; where it can't be made, the results are none the worse."""
    try:
        page.write(page.Options(output))
    except (DataError, filesystem.StorageError) as error:
        logging.warning("no %s: %s", output_folder.GALLERY_HTML, error)


def _check_rejections(finished: summary.Summary, allowed: float) -> None:
    content = finished.content
    reasons = summary.format_counts(content["rejections"])
    if not content["scored"]:
        raise DataError(
            f"none of the {content['inputs']} files could be scored ({reasons}); see rejections.* in {finished.output}"
        )
    if content["rejected"] > allowed * content["inputs"]:
        raise DataError(
            f"{content['rejected']} of {content['inputs']} files were rejected ({reasons}), more than --max_rejection_rate={allowed} "
            f"allows; everything else is in {finished.output}"
        )
