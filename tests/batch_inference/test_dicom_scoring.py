"""DICOM files through the whole scorer: radiographs, multi-frame files, studies by header."""

import json
import pathlib

import cv2
import numpy as np
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file

from batch_inference import main, pipeline
from batch_inference.inputs import body_parts as body_parts_lib
from tests.batch_inference.conftest import json_rows, picture
from tests.support import tiny_artifact
from tests.support.dicom_files import STUDY_UID, dicom_file

REAL = [
    f"RG{patient}_{coding}.dcm" for patient in (1, 3) for coding in ("UNCI", "UNCR", "J2KI", "J2KR")
]


def score(source, model, output, **options) -> list[dict]:
    pipeline.run(pipeline.Options(str(source), str(model), str(output), **options))
    return json_rows(output, "predictions")


@pytest.fixture(scope="module")
def real(model, tmp_path_factory) -> tuple[pathlib.Path, list[dict]]:
    """Output and rows of real radiographs: MONOCHROME1, 15 and 10 bits, plain and JPEG 2000."""
    root = tmp_path_factory.mktemp("real")
    (root / "in").mkdir()
    for name in REAL:
        (root / "in" / name).symlink_to(get_testdata_file(name, download=False))
    return root / "out", score(
        root / "in", model, root / "out", cam="side_by_side", cam_format="png"
    )


def test_every_real_radiograph_has_a_row(real):
    _, rows = real
    assert [pathlib.Path(row["uri"]).name for row in rows] == sorted(REAL)
    for row in rows:
        chest = "RG1" in row["uri"]
        assert (row["modality"], row["body_part"], row["view"]) == (
            ("CR", "CHEST", "PA") if chest else ("CR", "EXTREMITY", "AP")
        )
        assert row["frame"] is None and row["duplicate_of"] is None
    # Two patients, four encodings of each.
    assert len({row["study"] for row in rows}) == 2 and len({row["sha256"] for row in rows}) == 8
    for patient in ("RG1", "RG3"):
        probabilities = [row["probability"] for row in rows if patient in row["uri"]]
        assert np.ptp(probabilities) < 0.01


def test_bone_is_bright_in_every_picture(real):
    output, rows = real
    for row in rows:
        both = cv2.imread(str(output / row["cam"]), cv2.IMREAD_GRAYSCALE)
        radiograph = both[:, : both.shape[1] // 2]
        height, width = radiograph.shape

        def mean(top, bottom, left, right, shown=radiograph, height=height, width=width):
            return shown[
                int(top * height) : int(bottom * height), int(left * width) : int(right * width)
            ].mean()

        if "RG1" in row["uri"]:
            spine, lung = mean(0.45, 0.6, 0.46, 0.52), mean(0.2, 0.3, 0.62, 0.72)
            assert spine > lung + 50
        else:
            cortex, muscle, air = (
                mean(0.3, 0.35, 0.455, 0.465),
                mean(0.3, 0.35, 0.4, 0.43),
                mean(0.3, 0.35, 0.29, 0.33),
            )
            assert cortex > muscle + 20 > air + 60 and air < 40


@pytest.fixture(scope="module")
def humerus_model(tmp_path_factory) -> pathlib.Path:
    """Make a model that records that it was made for the humerus."""
    folder = tmp_path_factory.mktemp("humerus")
    tiny_artifact.make(folder, dataset={"body_parts": ["XR_HUMERUS"]})
    return folder


@pytest.fixture
def body_parts(tmp_path) -> pathlib.Path:
    """Write a file of the model's own body part, one of another, one of a wider term, and one of
    none.
    """
    root = tmp_path / "body_parts"
    root.mkdir()
    for seed, part in enumerate(("HUMERUS", "KNEE", "EXTREMITY", None)):
        contents = dicom_file(picture(seed, 32, 40), BodyPartExamined=part)
        (root / f"{part}.dcm").write_bytes(contents)
    return root


def test_other_body_parts_are_scored_with_a_warning(humerus_model, body_parts, tmp_path):
    rows = score(body_parts, humerus_model, tmp_path / "out", cam="none")
    warnings = {pathlib.Path(row["uri"]).stem: row["warnings"] for row in rows}
    assert warnings == {"HUMERUS": [], "KNEE": ["other_body_part"], "EXTREMITY": [], "None": []}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["warnings"] == {"other_body_part": 1}


def test_other_body_parts_are_rejected_where_the_flag_says_so(humerus_model, body_parts, tmp_path):
    rows = score(body_parts, humerus_model, tmp_path / "out", cam="none", other_body_parts="reject")
    assert sorted(pathlib.Path(row["uri"]).stem for row in rows) == ["EXTREMITY", "HUMERUS", "None"]
    (rejection,) = json_rows(tmp_path / "out", "rejections")
    assert pathlib.Path(rejection["uri"]).stem == "KNEE"
    assert rejection["reason"] == "other_body_part"
    assert rejection["detail"].startswith("the file names the body part KNEE; the model was made")


@pytest.mark.parametrize("known", [[], ["all"], ["XR_HUMERUS", "XR_TAIL"], None])
def test_a_model_of_unknown_body_parts_has_no_terms(tmp_path, known):
    described = tiny_artifact.make(tmp_path / "model", dataset={"body_parts": known})
    assert body_parts_lib.list_terms(described) == frozenset()


@pytest.fixture
def films(tmp_path) -> pathlib.Path:
    """Write a file of three frames, a picture of its study, one without extension, and one with a
    damaged frame.
    """
    root = tmp_path / "in"
    root.mkdir()
    single = [picture(seed, 32, 40).astype(np.uint16) * 16 for seed in range(3)]
    window = {
        "WindowCenter": 2040.5,
        "WindowWidth": 4081,
    }  # 16 stored values for each level of grey
    whole = dicom_file(np.vstack(single), NumberOfFrames=3, Rows=32, **window)
    (root / "film.dcm").write_bytes(whole)
    (root / "IM0001").write_bytes(dicom_file(single[1], uid.RLELossless, **window))
    cv2.imwrite(str(root / "other.PNG"), single[1] // 16)
    encoded = bytearray(
        dicom_file(np.vstack(single), uid.JPEG2000Lossless, NumberOfFrames=3, Rows=32, **window)
    )
    second = encoded.index(b"\xff\x4f\xff\x51", encoded.index(b"\xff\x4f\xff\x51") + 1)
    encoded[second + 8 : second + 16] = b"\0\0\0\7\0\0\0\7"
    (root / "damaged.dcm").write_bytes(bytes(encoded))
    return root


def test_a_row_and_a_picture_for_each_frame(films, model, tmp_path):
    rows = score(films, model, tmp_path / "out", frames="all", cam_format="png")
    found = sorted(
        (pathlib.Path(row["uri"]).name, row["frame"]) for row in rows if row["frame"] is not None
    )
    assert found == [
        ("damaged.dcm", 0),
        ("damaged.dcm", 2),
        ("film.dcm", 0),
        ("film.dcm", 1),
        ("film.dcm", 2),
    ]
    assert [pathlib.Path(row["uri"]).name for row in rows if row["frame"] is None] == [
        "IM0001",
        "other.PNG",
    ]
    (rejection,) = json_rows(tmp_path / "out", "rejections")
    assert (rejection["uri"][-11:], rejection["frame"], rejection["reason"]) == (
        "damaged.dcm",
        1,
        "bad_dicom",
    )
    assert len({row["cam"] for row in rows}) == len(rows) == 7
    assert all((tmp_path / "out" / row["cam"]).is_file() for row in rows)
    by_frame = {(pathlib.Path(row["uri"]).name, row["frame"]): row["probability"] for row in rows}
    # A frame's row is that of the same picture in a file of its own.
    assert by_frame["film.dcm", 1] == by_frame["IM0001", None] == by_frame["other.PNG", None]
    assert by_frame["film.dcm", 2] == by_frame["damaged.dcm", 2] != by_frame["film.dcm", 1]
    assert {row["duplicate_of"] for row in rows} == {None}, (
        "frames of one file are no duplicates of each other"
    )


def test_frames_that_are_scored_are_not_scored_again(films, model, tmp_path):
    before = score(films, model, tmp_path / "out", frames="all", cam_format="png")
    (tmp_path / "out" / next(row["cam"] for row in before if row["frame"] == 1)).unlink()
    options = pipeline.Options(
        str(films), str(model), str(tmp_path / "out"), frames="all", cam_format="png", resume=True
    )
    assert pipeline.run(options).kept == len(before) - 1
    after = json_rows(tmp_path / "out", "predictions")
    assert sorted(after, key=lambda row: row["cam"]) == sorted(before, key=lambda row: row["cam"])
    assert all((tmp_path / "out" / row["cam"]).is_file() for row in before)


def test_films_are_rejected_unless_asked_for(films, model, tmp_path):
    rows = score(films, model, tmp_path / "out")
    assert [pathlib.Path(row["uri"]).name for row in rows] == ["IM0001", "other.PNG"]
    assert [(row["reason"], row["frame"]) for row in json_rows(tmp_path / "out", "rejections")] == [
        ("unsupported", None)
    ] * 2


def test_studies_of_dicom_files_are_those_of_their_headers(model, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name, number in {"x.dcm": 1, "a/y.dcm": 1, "a/z.dcm": 2}.items():
        data = dicom_file(picture(len(name), 32, 40), StudyInstanceUID=f"{STUDY_UID}.{number}")
        (tmp_path / "in" / name).write_bytes(data)
    cv2.imwrite(str(tmp_path / "in" / "a" / "w.png"), picture(3))
    cv2.imwrite(str(tmp_path / "in" / "v.png"), picture(4))
    by_dicom = [
        row["study"] for row in score(tmp_path / "in", model, tmp_path / "auto", cam="none")
    ]
    w, y, z, v, x = by_dicom
    assert (w, v) == ("a", "v.png") and y == x != z and all(len(study) == 16 for study in (x, y, z))
    assert [
        row["images"] for row in json_rows(tmp_path / "auto", "studies") if row["study"] == x
    ] == [2]
    salted = score(tmp_path / "in", model, tmp_path / "salted", cam="none", id_salt="pepper")
    assert salted[1]["study"] == salted[4]["study"] not in (x, z)
    by_folder = score(tmp_path / "in", model, tmp_path / "folder", cam="none", study_key="folder")
    assert [row["study"] for row in by_folder] == ["a", "a", "a", "in", "in"]


def test_the_command_chooses_among_inputs(model, tmp_path, capsys):
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "c.BMP", "sub/d.png"):
        cv2.imwrite(str(root / name), picture(5))
    manifest = root / "list.csv"
    manifest.write_text("image,exam\na.png,e1\nsub/d.png,e1\nb.jpg,e2\n")

    def command(*flags: str) -> dict[str, str]:
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        code = main.score(
            ["humerus-score", f"--model={model}", f"--output={output}", "--cam=none", *flags]
        )
        assert code == 0, capsys.readouterr().err
        return {
            pathlib.Path(row["uri"]).name: row["study"] for row in json_rows(output, "predictions")
        }

    assert set(command(f"--input={root}", "--norecursive", "--exclude=list.*,*.JPG")) == {
        "a.png",
        "c.BMP",
    }
    assert set(
        command(f"--input={root}", "--exclude=sub", "--exclude=*.bmp", "--exclude=list.csv")
    ) == {"a.png", "b.jpg"}
    assert command(f"--input={manifest}", "--study_key=exam") == {
        "a.png": "e1",
        "d.png": "e1",
        "b.jpg": "e2",
    }
    assert (
        main.score(
            [
                "humerus-score",
                f"--model={model}",
                f"--input={root}",
                "--output=x",
                "--study_key=exam",
            ]
        )
        == 2
    )
    assert (
        "--study_key=exam: expected auto, folder, path, dicom, image or a column"
        in capsys.readouterr().err
    )
