"""Results in DICOM: what they hold, whom they name, that programs of others read and take them."""

import dataclasses
import io
import json
import pathlib
import re
import shutil
import subprocess

import cv2
import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from pydicom import uid
from pydicom.data import get_testdata_file

from batch_inference import main, pipeline
from tests.batch_inference.conftest import json_rows
from tests.support import orthanc as orthanc_lib
from tests.support.dicom_files import dicom_file
from tests.support.pictures import encode, picture
from tests.support.planted import SECRETS, found_in, planted_dicom
from trainer.dicom_output import source_header
from trainer.dicom_output.make_results import make_results_task
from trainer.drawing.legend import UNIT, Legend
from trainer.workers.dicom_results import ModelResult

REAL = ("RG1_UNCI.dcm", "RG3_J2KR.dcm")
UIDS = {
    "SOPClassUID": uid.ComputedRadiographyImageStorage,
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.77",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.76",
}


def score(source, model, output, **options) -> list[dict]:
    given = {"dicom": ("sc", "sr"), "cam_format": "png", "frames": "all"} | options
    pipeline.run(pipeline.Options(str(source), str(model), str(output), **given))
    return json_rows(output, "predictions")


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> tuple[pathlib.Path, dict[tuple[str, int | None], dict]]:
    """Score two real radiographs, two frames, files full of identifiers, one that no result can
    refer to, and a PNG file; return the output and the rows by name and frame."""
    root = tmp_path_factory.mktemp("dicom")
    (root / "in").mkdir()
    for name in REAL:
        shutil.copy(get_testdata_file(name, download=False), root / "in")
    film = np.vstack([picture(), picture()[::-1]])
    rows = len(picture())
    many = UIDS | {"SOPClassUID": uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage}
    files = {
        "planted.dcm": planted_dicom(),
        "film.dcm": dicom_file(film, NumberOfFrames=2, Rows=rows, **many),
        "nameless.dcm": dicom_file(picture(), **(UIDS | {"SOPInstanceUID": "not a UID"})),
        "picture.png": encode(picture(), "PNG"),
    }
    for name, contents in files.items():
        (root / "in" / name).write_bytes(contents)
    found = score(root / "in", model, root / "out")
    return root / "out", {(pathlib.Path(row["uri"]).name, row["frame"]): row for row in found}


def read(output: pathlib.Path, row: dict, kind: str) -> pydicom.Dataset:
    (path,) = [path for path in row["dicom"] if path.endswith(f".{kind}.dcm")]
    return pydicom.dcmread(output / path)


@pytest.mark.parametrize("name", REAL)
def test_results_belong_to_the_study_and_the_patient_of_their_source(run, name):
    output, rows = run
    source = pydicom.dcmread(get_testdata_file(name, download=False))
    for kind in ("sc", "sr"):
        result = read(output, rows[name, None], kind)
        for keyword in (
            *("StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
            *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
        ):
            assert result[keyword].value == source[keyword].value, keyword
        assert result.SeriesInstanceUID != source.SeriesInstanceUID
        assert result.SOPInstanceUID != source.SOPInstanceUID
        assert result.SOPInstanceUID.startswith("2.25.") and result.SOPInstanceUID.is_valid
    capture = read(output, rows[name, None], "sc")
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    report = read(output, rows[name, None], "sr")
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == source.StudyInstanceUID
    (series,) = evidence.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID


@pytest.mark.parametrize("key", [("RG1_UNCI.dcm", None), ("film.dcm", 1)])
def test_they_say_and_show_what_the_row_and_the_picture_do(run, key):
    output, rows = run
    row = rows[key]
    drawn = cv2.imread(str(output / row["cam"]))
    assert np.array_equal(read(output, row, "sc").pixel_array, drawn[..., ::-1])
    (path,) = [path for path in row["dicom"] if path.endswith(".sr.dcm")]
    (group,) = srread(output / path).content.get_image_measurement_groups()
    (measurement,) = group.get_measurements()
    assert measurement.name.meaning == "Calibrated probability of an abnormality"
    assert measurement.value == pytest.approx(row["probability"], abs=1e-6)
    (call,) = group.get_qualitative_evaluations()
    calls = {"positive": "Abnormal", "negative": "Normal", "uncertain": "Indeterminate"}
    assert call.value.meaning == calls[row["label"]]
    (image,) = group.source_images
    assert image.referenced_frame_numbers == ([2] if key[1] else None)
    algorithm = [item.TextValue for item in group[0].ContentSequence if "TextValue" in item]
    assert row["model"] in algorithm and f"engine={row['engine']}" in algorithm


def test_frames_have_results_of_their_own_in_one_series(run):
    output, rows = run
    both = [read(output, rows["film.dcm", frame], "sc") for frame in (0, 1)]
    assert both[0].SOPInstanceUID != both[1].SOPInstanceUID
    assert both[0].SeriesInstanceUID == both[1].SeriesInstanceUID


def test_a_file_that_no_result_can_refer_to_has_a_note_and_another_format_has_not(run):
    output, rows = run
    assert rows["nameless.dcm", None]["dicom"] == rows["picture.png", None]["dicom"] == []
    assert rows["nameless.dcm", None]["warnings"] == ["no_dicom_result"]
    assert rows["picture.png", None]["warnings"] == []
    assert rows["nameless.dcm", None]["cam"] and rows["picture.png", None]["cam"]
    named = {path for row in rows.values() for path in row["dicom"]}
    there = {str(path.relative_to(output)) for path in (output / "dicom_results").iterdir()}
    assert named == there and len(named) == 10
    assert json.loads((output / "summary.json").read_text())["warnings"]["no_dicom_result"] == 1


def test_identifiers_are_in_the_results_and_nowhere_else(run):
    output, rows = run
    result = read(output, rows["planted.dcm", None], "sr")
    assert set(found_in(str(result).encode())) == set(SECRETS)
    assert str(result.PatientName).endswith("Zoë") and "PatientAddress" not in result
    for path in output.rglob("*"):
        if path.is_file() and path.parent.name != "dicom_results":
            assert not found_in(path.read_bytes()), path
        assert not found_in(path.name.encode())


PROGRAMS = {
    "dcmdump": ["dcmdump", "-q"],
    "dsrdump": ["dsrdump", "-q"],
    "dciodvfy": ["dciodvfy"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_of_others_find_nothing_wrong(run, program):
    if not shutil.which(program):
        pytest.skip("Debian's dcmtk and dicom3tools are not installed")
    output, rows = run
    checked = 0
    for row in rows.values():
        for path in row["dicom"]:
            if program == "dsrdump" and not path.endswith(".sr.dcm"):
                continue
            command = [*PROGRAMS[program], str(output / path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = f"{done.stdout}{done.stderr}"
            assert done.returncode == 0 and not re.search(r"^(Error|E:|F:)", said, re.M), said
            checked += 1
    assert checked == (5 if program == "dsrdump" else 10)


def test_the_same_run_writes_the_same_bytes_and_a_resumed_one_what_is_missing(run, model, tmp_path):
    output, rows = run
    source, again = output.parent / "in", tmp_path / "again"
    score(source, model, again)
    names = sorted(path.name for path in (output / "dicom_results").iterdir())
    read_all = {
        folder: [(folder / "dicom_results" / name).read_bytes() for name in names]
        for folder in (output, again)
    }
    assert read_all[output] == read_all[again]
    (again / rows["film.dcm", 1]["dicom"][0]).unlink()
    (again / "dicom_results" / "left.sc.dcm").write_bytes(b"of an input that is gone")
    resumed = score(source, model, again, resume=True)
    by_key = {(pathlib.Path(row["uri"]).name, row["frame"]): row for row in resumed}
    assert by_key == rows
    assert [(again / "dicom_results" / name).read_bytes() for name in names] == read_all[output]
    assert not (again / "dicom_results" / "left.sc.dcm").exists()


def test_an_archive_takes_them_and_gives_them_back_equal(run, tmp_path_factory):
    output, rows = run
    files = [
        (output / path).read_bytes()
        for row in rows.values()
        if "RG1" in row["uri"]
        for path in row["dicom"]
    ]
    source = pathlib.Path(get_testdata_file("RG1_UNCI.dcm", download=False)).read_bytes()
    with orthanc_lib.running(tmp_path_factory.mktemp("orthanc")) as archive:
        archive.store([source, *files])
        study = pydicom.dcmread(io.BytesIO(source)).StudyInstanceUID
        client = archive.client()
        modalities = {series["00080060"]["Value"][0] for series in client.search_for_series(study)}
        assert modalities == {"CR", "OT", "SR"}
        for file in files:
            sent = pydicom.dcmread(io.BytesIO(file))
            got = client.retrieve_instance(
                study, sent.SeriesInstanceUID, sent.SOPInstanceUID, media_types=None
            )
            assert got == sent and got.get("PixelData") == sent.get("PixelData")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--dicom=sc", "--cam=none"], "--cam=none draws none"),
        (["--dicom=sr", "--cam_store=parquet"], "--cam_store=parquet does not"),
        (["--dicom=pdf"], "one or several of sc,sr"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(run, model, tmp_path, capsys, flags, what):
    output, _ = run
    command = [f"--input={output.parent}/in", f"--model={model}", f"--output={tmp_path}/out"]
    assert main.score(["humerus-score", *command, *flags]) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({}, True),
        ({"PatientName": None, "PatientID": None}, True),
        ({"StudyInstanceUID": None}, False),
        ({"SOPInstanceUID": "1.2.x"}, False),
        ({"PatientID": "7" * 65}, False),
        ({"PatientID": "4711\\4712"}, False),
        ({"PatientID": "47\n11"}, False),
        ({"PatientID": "4711\r\n"}, True),
        ({"PatientName": "Planted^Patient\\"}, True),
        ({"PatientBirthDate": "in May"}, True),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom says what is wrong with them
def test_which_sources_results_can_refer_to(attributes, named):
    header = source_header.extract(dicom_file(picture(), **(UIDS | attributes)))
    assert (header is not None) == named
    if header:
        found = source_header.parse(header)
        name = attributes.get("PatientName", "Planted^Patient") or ""
        assert found.PatientName == name.removesuffix("\\")
        assert "InstitutionName" in found and "PixelData" not in found
        if "PatientBirthDate" in attributes:
            assert not found.PatientBirthDate


TRIAL = {
    "ClinicalTrialSponsorName": "Sponsor",
    "ClinicalTrialProtocolID": "Protocol",
    "ClinicalTrialSubjectID": "Subject",
}
UNUSUAL = [
    *({"PatientOrientation": value} for value in (["LA", "FR"], ["A", "FL"], "L", None)),
    *({"PatientSex": value} for value in ("U", "MALE", "")),
    *({"InstanceNumber": value} for value in (-1, 0)),
    *({"ImageLaterality": value} for value in ("L", "U")),
    {"Laterality": "Q"},
    {"BurnedInAnnotation": "PERHAPS"},
    {"PatientIdentityRemoved": "YES"},
    {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "by hand"},
    *({keyword: "one\\two"} for keyword in ("StudyDescription", "ReferringPhysicianName")),
    *({keyword: "one\ntwo"} for keyword in ("StudyDescription", "InstitutionName")),
    TRIAL,
    TRIAL | {"ClinicalTrialSiteName": "Site"},
    {"ClinicalTrialSponsorName": "Sponsor"},
]


@pytest.mark.parametrize("attributes", UNUSUAL, ids=str)
@pytest.mark.filterwarnings("ignore")  # pydicom says what is wrong with them
def test_an_unusual_attribute_costs_no_valid_result(attributes, tmp_path):
    source = dicom_file(picture(), **(UIDS | {"BodyPartExamined": "SHOULDER"} | attributes))
    header = np.frombuffer(source_header.extract(source), np.uint8)
    model, created = "0123456789abcdef", "2026-01-02T03:04:05+00:00"
    result = ModelResult(
        "positive", 0.7, model, "tensorflow/float32", None, 0.5, "grad_cam", created
    )
    arrays = [header, picture(), np.eye(7, dtype=np.float32)]
    drawing = dataclasses.asdict(Legend(0.5, UNIT, "Grad-CAM", "", 7, 7, 64))
    _, files = make_results_task(arrays, ("sc", "sr"), dataclasses.asdict(result), drawing)
    capture = pydicom.dcmread(io.BytesIO(files[0].tobytes()))
    if "PatientOrientation" in attributes:
        given = attributes["PatientOrientation"]
        assert capture.PatientOrientation == (given if isinstance(given, list) else "")
    assert capture.Laterality == ("L" if attributes.get("ImageLaterality") == "L" else "")
    if not shutil.which("dciodvfy"):
        pytest.skip("Debian's dicom3tools are not installed")
    for file in files:
        path = tmp_path / "result.dcm"
        path.write_bytes(file.tobytes())
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert not re.search("^Error", done.stdout + done.stderr, re.M), done.stderr


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 144", "\u041b\u044e\u043a\u0441"), (None, "A^B")],
)
def test_names_keep_their_letters(charset, name):
    contents = dicom_file(picture(), SpecificCharacterSet=charset, PatientName=name, **UIDS)
    header = source_header.parse(source_header.extract(contents))
    assert str(header.PatientName) == name and header.SpecificCharacterSet == "ISO_IR 192"
