"""Check the options before a run starts, so that a mistake shows in seconds and writes nothing."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference import runners
from batch_inference.inputs import manifest, sources, study_key
from batch_inference.options import Options
from batch_inference.outputs import bigquery, output_folder, run_record
from batch_inference.outputs.records import replace_surrogates
from batch_inference.scoring import model_copy
from batch_inference.storage import filesystem, storage_errors
from trainer import machine, radiograph
from trainer.artifact import Artifact, ArtifactError
from trainer.errors import ConfigError, DataError
from trainer.inference import engine_choice, engine_records
from trainer.inference.engines import Choice


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run whose options have been checked.

    Attributes:
      options: the options as given.
      described: the artifact, with the threshold and method of the options.
      choice: engine and precision.
      shown: the input as logs may show it, without identifiers.
      inputs: number of inputs; None where counting would need a long remote listing.
      output: absolute URI of the folder for the results.
      record: the content of `run.json`.
      beam_options: Beam's options, with the runner.
      workers: where the runner's workers are.
    """

    options: Options
    described: Artifact
    choice: Choice
    shown: str
    inputs: int | None
    output: str
    record: run_record.RunRecord
    beam_options: PipelineOptions
    workers: runners.Workers


def plan(options: Options) -> Plan:
    """Check all that can be checked without writing anything, and return the plan of the run.

    Raises:
      ConfigError: options contradict each other or the machine, or there is no model.
      ArtifactError: the model is damaged, or this version cannot score with it.
      DataError: there is nothing to score.
      StorageOutageError: the storage does not answer.
    """
    check_addresses(input=options.input, model=options.model, output=options.output)
    check_cams(options.cam, options.cam_store)
    check_dicom(options.dicom, options.cam, options.cam_store)
    beam_options = runners.parse_beam_options(options.beam)
    runners.check_within_reach(
        beam_options, input=options.input, model=options.model, output=options.output
    )
    workers = runners.locate_workers(beam_options)
    # Beam sets these when a pipeline runs, but its storage needs credentials from here on.
    FileSystems.set_options(beam_options)
    _, described = model_copy.fetch(options.model)
    check_preprocessing(described)
    described = described.with_map_method(options.method).with_threshold(options.threshold)
    engine, precision = engine_choice.resolve_method(
        options.method, options.engine, options.precision
    )
    runs_here = workers is not runners.Workers.ELSEWHERE
    choice = engine_choice.choose(described, engine, precision, runs_here)
    engine_choice.log_advice(described, choice, engine, runs_here)
    key = study_key.make_study_key(options.study_key, options.id_salt, options.input)
    output = filesystem.absolute(options.output)
    check_apart(output, options.input)
    shown = sources.describe(options.input, key)
    inputs = count_inputs(options.input, options.exclude, options.recursive, output, shown)
    if options.bigquery:
        bigquery.choose_temporary_folder(beam_options, output)
    asked = dataclasses.asdict(options) | {
        "input": shown,
        "id_salt": key.fingerprint_salt(),
        "beam": omit_secrets(beam_options),
    }
    record = run_record.RunRecord(
        described.model_id,
        engine_records.identify(described, str(choice)),
        asked,
        described.threshold,
        described.uncertain_band,
        described.cam["scale"],
    )
    return Plan(options, described, choice, shown, inputs, output, record, beam_options, workers)


def describe_dry_run(planned: Plan) -> tuple[str, dict[str, Any]]:
    """Return what the run would read and write: for people, and of JSON types for programs.

    In the latter, `inputs` is None where they were not counted, and `earlier_results` is `kept`,
    `deleted`, or None where there are none.

    Raises:
      ConfigError: the output holds results that the run may not replace.
    """
    options, described, engine = planned.options, planned.described, planned.record.engine
    taken = output_folder.check(planned.output, planned.record, options.resume, options.overwrite)
    earlier = ("kept" if options.resume else "deleted") if taken else None
    document = {
        "input": planned.shown,
        "inputs": planned.inputs,
        "model": described.model_id,
        "engine": engine,
        "threshold": described.threshold,
        "output": planned.output,
        "format": options.format,
        "cam": options.cam,
        "dicom": options.dicom,
        "bigquery": options.bigquery,
        "earlier_results": earlier,
        "dry_run": True,
    }
    inputs = {None: "files", 1: "1 file"}.get(planned.inputs, f"{planned.inputs} files")
    pictures = "" if options.cam == "none" else f" and maps ({options.cam})"
    dicom = f", DICOM results ({', '.join(options.dicom)})" if options.dicom else ""
    tables = f" and to the tables of {options.bigquery}" if options.bigquery else ""
    there = f"; earlier results there would be {earlier}" if earlier else ""
    text = (
        f"would score {inputs} of {planned.shown} with model {described.model_id} on {engine}, "
        f"positive from {described.threshold:.3g} on\n"
        f"would write rows ({', '.join(options.format)}){pictures}{dicom} to {planned.output}"
        f"{tables}{there}\n"
        "dry run: nothing was written"
    )
    return text, document


def omit_secrets(options: PipelineOptions) -> dict[str, str]:
    """Return Beam's options without secrets, as `run.json` lies beside the results."""
    given = options.get_all_options(drop_default=True)
    return {
        name: str(value)
        for name, value in given.items()
        if not re.search("secret|token|connection_string|access_key", name)
    }


def check_addresses(**uris: str) -> None:
    """Raise `ConfigError` where one of `uris`, by flag, is not Unicode, which runners refuse."""
    for flag, uri in uris.items():
        plain = replace_surrogates(filesystem.absolute(uri))
        if plain != filesystem.absolute(uri):
            raise ConfigError(
                f"--{flag}={plain} holds bytes that are not UTF-8; rename that file or folder"
            )


def check_cams(style: str, store: str) -> None:
    """Raise `ConfigError` where the options pack maps and keep none."""
    if style == "none" and store != "files":
        raise ConfigError(
            f"--cam=none keeps no map for --cam_store={store} to hold; omit one of them"
        )


def check_dicom(kinds: Sequence[str], style: str, store: str) -> None:
    """Raise `ConfigError` where the DICOM results that are asked for cannot be made."""
    if not kinds:
        return
    asked = ",".join(kinds)
    if not machine.has_packages("highdicom"):
        raise ConfigError(
            f"--dicom={asked} needs the package highdicom; omit the flag, or "
            + machine.advise_extra("dicom")
        )
    if "sc" in kinds and style == "none":
        raise ConfigError(
            f"--dicom={asked} writes the picture of --cam, and --cam=none draws none; omit one"
        )
    if store != "files":
        raise ConfigError(
            f"--dicom={asked} writes files for each image, which --cam_store={store} does not; "
            "omit one of them"
        )


def check_preprocessing(described: Artifact) -> None:
    """Raise `ArtifactError` where the model was trained with another version of preprocessing."""
    made_under, here = described.preprocessing.get("version"), radiograph.PREPROCESSING["version"]
    if made_under != here:
        raise ArtifactError(
            f"the model was trained on pixels of preprocessing version {made_under}, this program "
            f"makes version {here}; score with the humerus that exported it, or train again"
        )


def count_inputs(
    location: str, exclude: Sequence[str], recursive: bool, output: str, shown: str | None = None
) -> int | None:
    """Return the number of inputs; None where counting would need a long remote listing.

    A manifest is always read to its end, as no line may name a result that the run would delete.
    Messages name the input as `shown`, by default as it is given.

    Raises:
      ConfigError: there is no such bucket or no access, or an input is a result in `output`.
      DataError: there is no input.
      StorageOutageError: the storage does not answer.
    """
    shown = shown or location
    counted = manifest.is_manifest(location) or not filesystem.is_remote(location)
    with storage_errors.explain_failure(
        ConfigError, f"--input={shown} cannot be listed", "check the address and access"
    ):
        if counted:
            inputs = sum(1 for _ in sources.find(location, exclude, recursive, output))
        else:
            inputs = int(sources.has_any(location, exclude, recursive, output))
    if not inputs:
        excluded = f" after --exclude={','.join(exclude)}" if exclude else ""
        found = (
            f"the manifest {shown} lists no file"
            if manifest.is_manifest(location)
            else f"no file matches {shown}"
        )
        raise DataError(
            f"nothing to score: {found}{excluded}; "
            "expected a folder, a glob or a manifest with files in it"
        )
    return inputs if counted else None


def check_apart(output: str, location: str) -> None:
    """Raise `ConfigError` where the input includes the output, or is a result in it."""
    uri, root = filesystem.absolute(location), sources.find_root(location)
    if sources.covers(location, output):
        raise ConfigError(
            f"--output={output} lies inside the input {uri}: its pictures would be scored; "
            "choose another folder"
        )
    is_result = output_folder.match_results(output)
    if (
        (sources.covers(location, root) and filesystem.is_within(root, output))
        or is_result(root)
        or is_result(uri)
    ):
        raise ConfigError(
            f"the input {uri} lies inside --output={output}: results and inputs would mix; "
            "choose another folder"
        )
