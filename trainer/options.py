"""The options of the trainer's commands, by the names of their flags."""

import dataclasses

from trainer import hub
from trainer.artifact import METHOD_TITLES
from trainer.program.flag_types import SCHEMES
from trainer.program.flags_from_dataclass import option

LAYOUTS = ("mura", "folders", "manifest", "fracatlas", "graz")
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 4096

_MAX_SEED = 2**32 - 1
_PREPARED = "Folder that humerus-prepare wrote to."
_ARTIFACT = "Artifact, local or gs://, or hf://user/name of the Hugging Face Hub."
_ARTIFACT_SCHEMES = (*SCHEMES, hub.SCHEME)
_BODY_PARTS = (
    "Body parts to keep, comma-separated, or all; for MURA (folders or lists) and fracatlas only."
)


@dataclasses.dataclass(frozen=True)
class PhantomOptions:
    """The options of humerus-phantom."""

    output: str = option("Folder for MURA-v1.1/ with the simulated radiographs.", schemes=SCHEMES)
    patients: int = option("Number of simulated patients.", 400, low=2, high=99999)
    seed: int = option("Seed of the random generator.", 0, low=0, high=_MAX_SEED)


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """The options of humerus-prepare, and of `prepare.prepare`."""

    source: str = option(
        "Folder, or CSV file of the layout manifest; local or gs://.", schemes=SCHEMES
    )
    layout: str = option("Layout of the source.", choices=LAYOUTS)
    data_dir: str = option("Folder for the prepared data; local or gs://.", schemes=SCHEMES)
    image_size: int = option(
        "Side of the square that every image is letterboxed to, in pixels.",
        320,
        low=MIN_IMAGE_SIZE,
        high=MAX_IMAGE_SIZE,
    )
    body_parts: tuple[str, ...] = option(_BODY_PARTS, ("XR_HUMERUS",))
    validation_fraction: float = option(
        "Share of the patients, below 1, if the source has no validation split.",
        0.15,
        low=0,
        high=1,
    )
    test_fraction: float = option(
        "Share of the patients, if the source has no test split; below 1 together with "
        "--validation_fraction.",
        0.2,
        low=0,
        high=1,
    )
    seed: int = option("Seed of the assignment of patients to splits.", 0, low=0, high=_MAX_SEED)
    overwrite: bool = option(
        "Replace a data set that other content or options made in --data_dir.", False
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The options of humerus-train beside --config, which `training.recipes` defines."""

    data_dir: str = option(_PREPARED, schemes=SCHEMES)
    workdir: str = option("Folder of the run, local or gs://.", schemes=SCHEMES)
    folds: int = option(
        "Cross-validate with this many networks, exported as one; 0 trains one network on the "
        "training split.",
        0,
        low=0,
        high=1000,
    )
    profile: bool = option("Record ten of the first steps for TensorBoard's profiler.", False)
    track: str | None = option(
        "Record settings, curves, metrics, report and artifact with an experiment tracker, which "
        "its own environment variables configure. The report shows radiographs.",
        None,
        choices=("mlflow", "wandb"),
    )
    sweep: str | None = option(
        "Text file with a trial on each line: its name, then settings. Trains the trial of "
        "--sweep_line, in a folder of --workdir with the trial's name.",
        None,
        schemes=(),
    )
    sweep_line: int | None = option(
        "Index of the trial in --sweep, from 0; comments, blank lines and * lines don't count.",
        None,
        low=0,
        high=10**6,
    )


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The options of humerus-sweep."""

    sweep: str = option(
        "Text file with a trial on each line: its name, then settings such as "
        "--config.dropout=0.5. The others are compared with the first.",
        schemes=(),
    )
    data_dir: str = option(_PREPARED, schemes=SCHEMES)
    workdir: str = option("Folder of the trials' folders, local or gs://.", schemes=SCHEMES)
    split: str = option(
        "Split to compare on.", "validation", choices=("train", "validation", "test")
    )
    table_only: bool = option("Train nothing; compare the trials that are finished.", False)


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """The options of humerus-evaluate."""

    model: str = option(_ARTIFACT, schemes=_ARTIFACT_SCHEMES)
    data_dir: str | None = option(_PREPARED, None, schemes=SCHEMES)
    source: str | None = option(
        "Labelled images that are not prepared: a folder, or the CSV file of a manifest.",
        None,
        schemes=SCHEMES,
    )
    layout: str | None = option("Layout of --source.", None, choices=LAYOUTS)
    body_parts: tuple[str, ...] = option(_BODY_PARTS, ("XR_HUMERUS",))
    baseline: str | None = option(
        "Another artifact, with which --model is compared image by image.",
        None,
        schemes=_ARTIFACT_SCHEMES,
    )
    baseline_data_dir: str | None = option(
        "Prepared data for a --baseline that takes images of another size.", None, schemes=SCHEMES
    )
    split: str | None = option(
        "Split to evaluate on; by default, test of --data_dir, or all images of --source.",
        None,
        choices=("train", "validation", "test"),
    )
    predictions: str | None = option(
        "CSV file for label, logit and probability of each image, by --model.",
        None,
        schemes=SCHEMES,
    )


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """The options of humerus-verify."""

    model: str = option(
        "Artifact, local or gs://; the measurements, and networks in int8 and ONNX, are added "
        "to it.",
        schemes=SCHEMES,
    )
    data_dir: str | None = option(
        "Folder that humerus-prepare wrote to; its validation and test splits are measured.",
        None,
        schemes=SCHEMES,
    )
    images: str | None = option("Folder of images to measure on instead.", None, schemes=SCHEMES)
    masks: str | None = option(
        "Locations of findings in these images, with which the maps are compared: a COCO file, or "
        "findings.json of humerus-phantom.",
        None,
        schemes=SCHEMES,
    )
    requantize: bool = option("Quantise the network to int8 again, with these images.", False)


@dataclasses.dataclass(frozen=True)
class CombineOptions:
    """The options of humerus-combine beside the artifacts."""

    data_dir: str = option(
        "Folder that humerus-prepare wrote to, for all artifacts; the validation split is fitted "
        "on, the test split measured on.",
        schemes=SCHEMES,
    )
    output: str = option("Folder for the combined artifact, local or gs://.", schemes=SCHEMES)
    threshold_rule: str = option(
        "How the threshold is chosen: kappa, youden, accuracy, sensitivity>=0.95, "
        "specificity>=0.9, or a fixed number.",
        "kappa",
    )
    verify_engines: bool = option("Measure engines that score faster than TensorFlow.", True)


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """The options of humerus-report beside the folders of runs."""

    output: str = option("The page, local or gs://.", "compare.html", schemes=SCHEMES)


@dataclasses.dataclass(frozen=True)
class WaitOptions:
    """The options of humerus-wait."""

    data_dir: str | None = option("Folder that humerus-prepare writes to.", None, schemes=SCHEMES)
    model: str | None = option("Artifact that humerus-train writes.", None, schemes=SCHEMES)
    hours: float = option(
        "Hours to wait; then the command ends with exit code 3.", 6.0, low=0, high=10000
    )


@dataclasses.dataclass(frozen=True)
class ExplainOptions:
    """The options of humerus-explain beside the names of the images."""

    model: str | None = option(
        "Artifact, local or gs://; by default, the first argument that is not a flag.",
        None,
        schemes=SCHEMES,
    )
    output: str = option("Folder for the pages.", "explained", schemes=SCHEMES)
    method: tuple[str, ...] = option(
        "Comma-separated methods of the maps.", tuple(METHOD_TITLES), choices=METHOD_TITLES
    )
    layer: str = option(
        "Layer of the maps; fused_layer_cam and refined_cam use ends of the blocks up to it.",
        "features",
    )
    feature_maps: tuple[str, ...] = option(
        "Comma-separated layers whose outputs are shown as a grid.", ()
    )
    filters: tuple[str, ...] = option(
        "Comma-separated layers whose filter patterns are computed, in up to a minute each.", ()
    )
    legend: bool = option(
        "Put a strip below each map that says what the colours mean, how large a cell is, its "
        "method and its model.",
        False,
    )
    list_layers: bool = option("Print each layer that has a map, with its shape.", False)
