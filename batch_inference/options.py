"""The options of the scorer's commands, by the names of their flags."""

import dataclasses
import fnmatch

from trainer import hub
from trainer.artifact import ONE_PASS_METHOD
from trainer.program.flag_types import BEAM_SCHEMES
from trainer.program.flags_from_dataclass import option
from trainer.workers import dicom_results

_PICTURE_STYLES = ("overlay", "heatmap", "side_by_side")
_PICTURE_FORMATS = ("jpeg", "png", "webp")
_COLOURS = ("viridis", "jet")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of humerus-score."""

    input: str = option(
        "Folder (with its subfolders), glob, gs:// prefix, or manifest: .txt with a path on each "
        "line, .csv with a column path; or dicomweb+https://HOST/PATH/studies/UID, also "
        "with a query.",
        schemes=(*BEAM_SCHEMES, "dicomweb+http", "dicomweb+https"),
    )
    model: str = option(
        "The `artifact` folder that training exported, local or gs://, or hf://user/name of the "
        "Hugging Face Hub.",
        schemes=(*BEAM_SCHEMES, hub.SCHEME),
    )
    output: str = option("Folder for the results, local or gs://.", schemes=BEAM_SCHEMES)
    exclude: tuple[str, ...] = option(
        "Comma-separated glob patterns of files to skip, by path below the input or by name; "
        "the flag may be repeated.",
        (),
        repeatable=True,
    )
    recursive: bool = option("Whether to include the subfolders of a folder.", True)
    frames: str = option(
        "all: write a row for each frame of a DICOM file. one: reject multi-frame files.",
        "one",
        choices=("one", "all"),
    )
    other_body_parts: str = option(
        "What to do with DICOM files of a body part that the model was not made for: "
        "score them with a warning in the row, or reject them.",
        "score",
        choices=("score", "reject"),
    )
    study_key: str = option(
        "What the images of one study share: folder, path (MURA's patientNNNNN/studyK), dicom "
        "(StudyInstanceUID), image (each is its own), or a column of the manifest. auto: the "
        "manifest's column study, otherwise dicom, path or folder, in this order. With auto, a "
        "folder is a study only if it lies below the root of the input, holds at most a dozen "
        "images, and has another name than train, positive and the like; the folder of a file in a "
        "manifest counts only with --study_key=folder.",
        "auto",
    )
    id_salt: str | None = option(
        "Secret that turns DICOM study UIDs into pseudonyms, the same in every run. Without it, "
        "anyone who has the UIDs can recognise them.",
        None,
        secret=True,
    )
    dicomweb_names: str = option(
        "What names the instances of a DICOM archive in rows and pictures: pseudonym (see "
        "--id_salt), or uid, which identifies them.",
        "pseudonym",
        choices=("pseudonym", "uid"),
    )
    engine: str = option(
        "What runs the network. auto: the fastest engine here that the artifact records as "
        "verified, or TensorFlow.",
        "auto",
        choices=("auto", "tensorflow", "openvino", "onnx"),
    )
    precision: str = option(
        "Arithmetic of the engine. auto: that of the fastest verified engine, or float32. OpenVINO "
        "has float32, bfloat16 and int8; ONNX has float32; TensorFlow has float32 and, on a GPU, "
        "float16.",
        "auto",
        choices=("auto", "float32", "bfloat16", "int8", "float16"),
    )
    threshold: float | None = option(
        "Probability from which on an image or a study is positive; none is then uncertain. By "
        "default, the artifact's own.",
        None,
        low=0,
        high=1,
    )
    batch_size: int = option("Number of images in a batch.", 32, low=1, high=4096)
    cam: str = option(
        "Picture to draw for each image: the map on the radiograph, the map alone, both side by "
        "side, or none.",
        "overlay",
        choices=(*_PICTURE_STYLES, "none"),
    )
    method: str = option(
        "Method that draws the maps: grad_cam, computed with the probability, or a method that "
        "training exported (--config.cam_methods).",
        ONE_PASS_METHOD,
    )
    cam_format: str = option("File format of the pictures.", "jpeg", choices=_PICTURE_FORMATS)
    cam_colours: str = option(
        "Colours of the maps; jet misleads people without colour vision.",
        "viridis",
        choices=_COLOURS,
    )
    cam_legend: bool = option(
        "Put a strip below each picture that says what the colours mean, how large a cell of the "
        "map is, its method and its model.",
        False,
    )
    cam_min_probability: float = option(
        "Draw only images with at least this probability.", 0.0, low=0, high=1
    )
    cam_store: str = option(
        "files: write a picture per image. parquet: write files of 256 maps each, from which "
        "humerus-overlay draws any of them later.",
        "files",
        choices=("files", "parquet"),
    )
    dicom: tuple[str, ...] = option(
        "Results to write as DICOM for DICOM inputs, comma-separated: sc, the picture of --cam as "
        "Secondary Capture; sr, label and probability as structured report. These files hold the "
        "patient's identifiers.",
        (),
        choices=dicom_results.KINDS,
    )
    format: tuple[str, ...] = option(
        "File formats of the rows, comma-separated: one or several of jsonl,csv,parquet.",
        ("jsonl", "csv"),
        choices=("jsonl", "csv", "parquet"),
    )
    bigquery: str | None = option(
        "PROJECT:DATASET that gets the rows too, in the tables predictions, studies and "
        "rejections; missing tables are created.",
        None,
    )
    max_rejection_rate: float = option(
        "Fail if more than this share of the files is rejected.", 1.0, low=0, high=1
    )
    resume: bool = option(
        "Continue a run of the same model and options that was stopped. Of a finished run, score "
        "what is new or changed.",
        False,
    )
    overwrite: bool = option("Delete the results of an earlier run in --output.", False)
    beam: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The options that select images of a scored folder."""

    uri: str = option("Only inputs whose URI matches this glob; * matches slashes too.", "*")
    min_probability: float = option(
        "Only images with at least this probability.", 0.0, low=0, high=1
    )
    label: str | None = option(
        "Only images of this label.", None, choices=("positive", "negative", "uncertain")
    )

    def selects(self, uri: str, label: str, probability: float) -> bool:
        """Return whether the image of a row is selected."""
        return (
            self.label in (None, label)
            and probability >= self.min_probability
            and fnmatch.fnmatchcase(uri, self.uri)
        )


@dataclasses.dataclass(frozen=True)
class GalleryOptions(Selection):
    """The options of humerus-gallery."""

    scored: str = option(
        "Folder of a finished run, local or gs://.", schemes=BEAM_SCHEMES, any_bytes=True
    )
    page: str = option("Name of the page in that folder, such as positives.html.", "gallery.html")
    overwrite: bool = option("Replace a page that shows more rows than this one.", False)

    def selects_part(self) -> bool:
        """Return whether the options may omit images."""
        return self != GalleryOptions(self.scored, page=self.page, overwrite=self.overwrite)


@dataclasses.dataclass(frozen=True)
class OverlayOptions(Selection):
    """The options of humerus-overlay."""

    scored: str = option(
        "Folder of a run with --cam_store=parquet, local or gs://.",
        schemes=BEAM_SCHEMES,
        any_bytes=True,
    )
    output: str = option(
        "Folder for the pictures, local or gs://; it may be that of --scored.", schemes=BEAM_SCHEMES
    )
    style: str = option(
        "Picture to draw, as --cam of humerus-score.", "overlay", choices=_PICTURE_STYLES
    )
    cam_colours: str = option("Colours of the maps.", "viridis", choices=_COLOURS)
    cam_legend: bool = option("Put a strip below each picture, as humerus-score does.", False)
    cam_format: str = option("File format of the pictures.", "jpeg", choices=_PICTURE_FORMATS)
