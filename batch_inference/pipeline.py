"""Scoring as a Beam pipeline: files in; rows, pictures, rejections and a summary out."""

import dataclasses
import datetime
import json
import time
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.ml.inference.base import RunInference

from batch_inference import (
    cam_store,
    duplicates,
    engines,
    manifest,
    preflight,
    progress,
    row_files,
    schema,
    sinks,
    sources,
    storage,
    studies,
    study_key,
    summary,
)
from batch_inference.concurrent_map import ConcurrentFlatMap, ConcurrentMap, usable_cores
from batch_inference.decode import Decode
from batch_inference.model_handler import ScoringHandler
from batch_inference.records import Rejection
from trainer.artifact import Artifact
from trainer.errors import DataError

# Storage over the network is waited for, not computed.
_REMOTE_THREADS = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; names and meanings are those of the flags."""

    input: str
    model: str
    output: str
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    frames: str = "one"
    study_key: str = "auto"
    id_salt: str | None = dataclasses.field(default=None, repr=False)
    engine: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    cam: str = "overlay"
    cam_format: str = "jpeg"
    cam_min_probability: float = 0.0
    cam_store: str = "files"
    format: tuple[str, ...] = ("jsonl", "csv")
    max_rejection_rate: float = 1.0
    overwrite: bool = False
    beam: tuple[str, ...] = ()


def build(pipeline: beam.Pipeline, options: Options, described: Artifact, choice: engines.Choice) -> None:
    """Adds scoring to `pipeline`: every input ends as one prediction or one rejection under `options.output`."""
    output = storage.absolute(options.output)
    remote = storage.is_remote(output) or storage.is_remote(options.input)
    threads = _REMOTE_THREADS if remote else usable_cores()
    window = options.batch_size + 2 * threads
    carried = manifest.carried_columns(options.input)
    key = study_key.chosen(options.study_key, options.id_salt, options.input)
    decode = Decode(described.image_size, options.cam != "none", described.model_id, key, options.frames == "all")
    finish = sinks.Finish(output, described, str(choice), options.cam, options.cam_format, options.cam_min_probability)
    handler = ScoringHandler(storage.absolute(options.model), choice, options.batch_size, described.model_id)

    examples, unprepared = (
        pipeline
        | "Input" >> beam.Create([options.input])
        | "Find" >> beam.FlatMap(sources.find, options.exclude, options.recursive)
        | "Each once" >> _EachOnce()
        | "Read and decode" >> beam.ParDo(ConcurrentFlatMap(decode, window, threads))
        | "Decoded?" >> beam.Partition(_is_rejection, 2)  # type: ignore[arg-type]
    )
    results = examples | "Score" >> RunInference(handler)
    if options.cam_store == "parquet":
        encode = ConcurrentMap(cam_store.Encode(described, options.cam_min_probability), window, threads)
        results = results | "Encode" >> beam.ParDo(encode) | "Pack" >> beam.ParDo(cam_store.WritePacks(output))
    scored, unfinished = (
        results
        | "Draw and write" >> beam.ParDo(ConcurrentMap(finish, window, threads))
        | "Scored?" >> beam.Partition(_is_rejection, 2)  # type: ignore[arg-type]
    )
    predictions, once_per_study = scored | "Duplicates" >> duplicates.Mark()
    rejections = (unprepared, unfinished) | "All rejections" >> beam.Flatten()
    per_study = (
        once_per_study
        | "By study" >> beam.Map(lambda row: (row.study, (row.probability, row.uri)))
        | "Mean" >> beam.CombinePerKey(studies.PerStudy())
        | "Study" >> beam.MapTuple(lambda study, combined: studies.study_row(study, combined, described))
    )
    rows = {"predictions": predictions, "studies": per_study, "rejections": rejections}
    for name, collection in rows.items():
        table = schema.columns(schema.TABLES[name], () if name == "studies" else carried)
        collection | name.capitalize() >> row_files.WriteRows(output, name, table, options.format)
    (
        (predictions, rejections)
        | "All rows" >> beam.Flatten()
        | "Count" >> beam.CombineGlobally(summary.Count(described))
        | "Summary" >> beam.Map(lambda counts: summary.content(counts, described, str(choice)))
        | "Write summary" >> beam.Map(lambda content: sinks.write_json(storage.join(output, sinks.SUMMARY_JSON), content))
    )


class _EachOnce(beam.PTransform):
    """Spreads sources over the workers, and drops the second mention of the same URI."""

    def expand(self, found: beam.PCollection) -> beam.PCollection:
        return (
            found
            # As bytes: a file name need not be Unicode.
            | beam.Map(lambda source: (source.uri.encode("utf-8", "surrogatepass"), source))
            | beam.GroupByKey()
            | beam.MapTuple(lambda _, mentions: min(mentions))
        )


def _is_rejection(record: Any, _: int) -> int:
    return int(isinstance(record, Rejection))


def run(options: Options) -> summary.Summary:
    """Scores a whole input and waits for the end.

    Raises:
      ConfigError: options that contradict each other or the machine.
      ArtifactError: `options.model` is not a model that this version can score with.
      DataError: nothing to score, nothing scored, more rejections than allowed, or an output that is taken.
    """
    preflight.check_cams(options.cam, options.cam_store)
    beam_options = preflight.beam_options(options.beam)
    _, described = storage.fetch_artifact(options.model)
    preflight.check_preprocessing(described)
    choice = engines.choose(described, options.engine, options.precision)
    key = study_key.chosen(options.study_key, options.id_salt, options.input)
    total = preflight.count_inputs(options.input, options.exclude, options.recursive)
    output = preflight.claim(options.output, options.input, options.overwrite)
    record = {
        "state": "running",
        "started": _now(),
        "model": described.model_id,
        "engine": str(choice),
        "options": dataclasses.asdict(options)
        | {"beam": preflight.without_secrets(beam_options), "id_salt": key.mark_of_salt()},
    }
    run_json = storage.join(output, sinks.RUN_JSON)
    sinks.write_json(run_json, record)
    logging.info("scoring %s with model %s on %s", options.input, described.model_id, choice)
    start = time.monotonic()
    with progress.shown(total), beam.Pipeline(options=beam_options) as pipeline:
        build(pipeline, options, described, choice)
    finished = _complete_summary(output, time.monotonic() - start)
    sinks.write_json(run_json, record | {"state": "finished", "finished": _now()})
    _check_rejections(finished, options.max_rejection_rate)
    return finished


def _complete_summary(output: str, seconds: float) -> summary.Summary:
    uri = storage.join(output, sinks.SUMMARY_JSON)
    content = json.loads(storage.read(uri))
    content |= {"seconds": round(seconds, 3), "images_per_second": round(content["inputs"] / seconds, 2)}
    sinks.write_json(uri, content)
    return summary.Summary(output, content)


def _check_rejections(finished: summary.Summary, allowed: float) -> None:
    content = finished.content
    reasons = ", ".join(f"{number} {reason}" for reason, number in content["rejections"].items())
    if not content["scored"]:
        raise DataError(
            f"none of the {content['inputs']} files could be scored ({reasons}); see rejections.* in {finished.output}"
        )
    if content["rejected"] > allowed * content["inputs"]:
        raise DataError(
            f"{content['rejected']} of {content['inputs']} files were rejected ({reasons}), more than --max_rejection_rate={allowed} "
            f"allows; everything else is in {finished.output}"
        )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
