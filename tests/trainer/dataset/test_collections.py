"""Published collections by name: FracAtlas and GRAZPEDWRI-DX in their own folders and tables."""

import csv
import pathlib

import cv2
import numpy as np
import pytest

from trainer.dataset import sources, splits
from trainer.dataset.encode import encode
from trainer.errors import ConfigError, DataError

PIXELS = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
JPEG = cv2.imencode(".jpg", PIXELS.astype(np.uint8))[1].tobytes()
PNG = cv2.imencode(".png", PIXELS * 100)[1].tobytes()
FRACATLAS = (
    "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,"
    "lateral,oblique\n"
)
GRAZ = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,"
    "ao_classification,cast,diagnosis_uncertain,osteopenia,fracture_visible,metal\n"
)


def fracatlas(root: pathlib.Path, *rows: str) -> str:
    """Write a collection; a row is `number parts fractured`, such as `7 hand,shoulder 1`."""
    table = FRACATLAS
    for row in rows:
        number, parts, fractured = row.split()
        name = f"IMG{int(number):07d}.jpg"
        flags = [str(int(part in parts)) for part in ("hand", "leg", "hip", "shoulder")]
        table += ",".join([name, *flags, "0", "1", "0", fractured, fractured, "1", "0", "0"]) + "\n"
        folder = root / "images" / ("Fractured" if fractured == "1" else "Non_fractured")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)
    (root / "dataset.csv").write_text(table)
    (root / "Annotations" / "YOLO").mkdir(parents=True)
    (root / "Annotations" / "YOLO" / "IMG0000001.txt").write_text("0 0.1 0.1 0.1 0.1")
    return str(root)


ROWS = ("1 hand 0", "2 hand 1", "3 hand,shoulder 0", "4 shoulder 1", "5 shoulder 0", "7 shoulder 0")


def test_fracatlas_is_read_by_its_table(tmp_path):
    source = fracatlas(tmp_path, *ROWS)
    listing = sources.list_source(source, "fracatlas", ("all",))
    found = {int(each.path[-11:-4]): each for each in listing.examples}
    assert {number: each.label for number, each in found.items()} == {
        1: 0, 2: 1, 3: 0, 4: 1, 5: 0, 7: 0
    }  # fmt: skip
    assert found[2].path == "images/Fractured/IMG0000002.jpg"
    assert pathlib.Path(found[2].uri).read_bytes() == JPEG
    assert found[3].attributes["body_part"] == "hand shoulder"
    assert found[3].attributes["hardware"] == "1" and found[3].split is None
    # A run of numbers that show the same parts stands for a patient.
    patients = {number: each.patient_id for number, each in found.items()}
    assert len(set(patients.values())) == 4
    assert patients[1] == patients[2] and patients[4] == patients[5] != patients[7]
    assert not splits.list_patient_warnings(listing.examples) and not listing.omissions


def test_fracatlas_with_a_number_longer_than_python_converts(tmp_path):
    source = fracatlas(tmp_path, *ROWS)
    with (tmp_path / "dataset.csv").open("a") as table:
        table.write(f"IMG{'9' * 5000}.jpg,0,0,0,1,0,1,0,0,0,1,0,0\n")
    listing = sources.list_source(source, "fracatlas", ("all",))
    assert len(listing.examples) == len(ROWS) + 1  # preparation finds that its file is missing


@pytest.mark.parametrize(
    ("parts", "numbers"),
    [(("XR_HUMERUS",), "3457"), (("SHOULDER",), "3457"), (("hand",), "123"), (("leg",), "")],
)
def test_fracatlas_by_body_part(tmp_path, parts, numbers):
    listing = sources.list_source(fracatlas(tmp_path, *ROWS), "fracatlas", parts)
    assert "".join(each.path[-5] for each in listing.examples) == "".join(
        sorted(numbers, key=lambda number: (number not in "24", number))
    )
    assert {each.reason for each in listing.omissions} == {"other_body_part"}
    assert len(listing.omissions) == len(ROWS) - len(numbers)


def test_what_does_not_fit_in_fracatlas(tmp_path):
    source = fracatlas(tmp_path, *ROWS)
    (tmp_path / "images" / "Fractured" / "stray.jpg").write_bytes(JPEG)
    (tmp_path / "images" / "Non_fractured" / "IMG0000007.jpg").unlink()
    listing = sources.list_source(source, "fracatlas", ("all",))
    assert [(each.path, each.reason) for each in listing.omissions] == [
        ("images/Fractured/stray.jpg", "outside_layout")
    ]
    reasons = {each.path[-5]: encode(each, 32).reason for each in listing.examples}
    assert reasons == {**dict.fromkeys("12345"), "7": "missing"}
    with pytest.raises(ConfigError, match="no body part elbow: expected hand, leg, hip, shoulder"):
        sources.list_source(source, "fracatlas", ("elbow",))
    (tmp_path / "images" / "Fractured" / "IMG0000001.jpg").write_bytes(JPEG)
    (tmp_path / "images" / "Non_fractured" / "IMG0000001.jpg").unlink()
    with pytest.raises(DataError, match="another folder than dataset"):
        sources.list_source(source, "fracatlas", ("all",))


def test_real_radiographs_in_fracatlas_layout(shared, tmp_path):
    """The shoulder subset, put back into the collection's folders: its truncated files are refused
    with their reason, and its patients are the groups that its authors were given."""
    subset = shared / "data" / "fracatlas_shoulder"
    rows = list(csv.DictReader((subset / "labels.csv").open()))
    table = FRACATLAS
    for row in rows:
        name = pathlib.Path(row["file"]).name
        flags = [row["hand"], "0", "0", "1", "0", row["hardware"], "0", row["label"], row["label"]]
        table += ",".join([name, *flags, row["frontal"], row["lateral"], row["oblique"]]) + "\n"
        folder = tmp_path / "images" / ("Fractured" if row["label"] == "1" else "Non_fractured")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(subset / row["file"])
    (tmp_path / "dataset.csv").write_text(table)
    listed = sources.list_source(str(tmp_path), "fracatlas", ("XR_HUMERUS",)).examples
    found = {pathlib.Path(each.path).name: each for each in listed}
    assert len(found) == len(rows) == 349 and sum(each.label for each in listed) == 63
    damaged = [row["file"].rpartition("/")[2] for row in rows if row["decodable"] == "0"]
    sound = [row["file"].rpartition("/")[2] for row in rows if row["decodable"] == "1"][:3]
    assert len(damaged) == 6
    assert {encode(found[name], 64).reason for name in damaged} == {"truncated"}
    assert {encode(found[name], 64).reason for name in sound} == {None}
    groups = {row["file"].rpartition("/")[2]: row["group"] for row in rows}
    together = {(found[name].patient_id, groups[name]) for name in groups}
    # Images of one stand-in never belong to two of the groups.
    assert len({patient for patient, _ in together}) == len(together)


def graz(root: pathlib.Path, *rows: str) -> str:
    """Write a collection; a row is `part stem patient study fracture`; - is a blank cell."""
    table = GRAZ
    for row in rows:
        part, stem, patient, study, fracture = row.replace("-", "").split(" ")
        table += f"{stem},{patient},{study},abc,M,9.5,L,1,1,23-M/2.1,,,,{fracture},\n"
        (root / part).mkdir(parents=True, exist_ok=True)
        (root / part / f"{stem}.png").write_bytes(PNG)
    (root / "dataset.csv").write_text(table)
    (root / "folder_structure").mkdir()
    (root / "folder_structure" / "meta.json").write_text("{}")
    return str(root)


GRAZ_ROWS = (
    "images_part1 0001_01_a 1 1 1.0",
    "images_part1 0001_01_b 1 1 1.0",
    "images_part2 0001_02_a 1 2 -",
    "images_part2 0002_01_a 2 1 1.0",
    "images_part4 0002_01_b 2 1 -",
)


def test_graz_is_read_by_its_table(tmp_path):
    source = graz(tmp_path, *GRAZ_ROWS)
    (tmp_path / "images_part1" / "stray.png").write_bytes(PNG)
    listing = sources.list_source(source, "graz", ("XR_HUMERUS",))
    assert [
        (each.path, each.label, each.patient_id, each.study_id) for each in listing.examples
    ] == [
        ("images_part1/0001_01_a.png", 1, "1", "1/1"),
        ("images_part1/0001_01_b.png", 1, "1", "1/1"),
        ("images_part2/0001_02_a.png", 0, "1", "1/2"),
        # The fracture is visible in one of two images only.
        ("images_part2/0002_01_a.png", 1, "2", "images_part2/0002_01_a.png"),
        ("images_part4/0002_01_b.png", 0, "2", "images_part4/0002_01_b.png"),
    ]
    assert [each.path for each in listing.omissions] == ["images_part1/stray.png"]
    attributes = listing.examples[0].attributes
    assert attributes["ao_classification"] == "23-M/2.1" and attributes["laterality"] == "L"
    assert not {"timehash", "filestem"} & attributes.keys()
    splits.check_groups(listing.examples)
    encoded = encode(listing.examples[0], 32)
    assert encoded.reason is None and encoded.attributes["source_mode"] == "grey16"


def test_a_file_of_graz_that_is_missing_or_there_twice(tmp_path):
    source = graz(tmp_path, *GRAZ_ROWS)
    (tmp_path / "images_part4" / "0002_01_b.png").unlink()
    gone = sources.list_source(source, "graz", ()).examples[0]
    assert gone.path == "0002_01_b.png" and encode(gone, 32).reason == "missing"
    (tmp_path / "images_part4" / "0001_01_a.png").write_bytes(PNG)
    with pytest.raises(DataError, match="are the same image of GRAZPEDWRI-DX"):
        sources.list_source(source, "graz", ())


@pytest.mark.parametrize("layout", ["fracatlas", "graz"])
def test_a_folder_that_is_not_the_collection(tmp_path, layout):
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "x.png").write_bytes(PNG)
    with pytest.raises(DataError, match=r"holds no dataset\.csv of .*; name the folder in which"):
        sources.list_source(str(tmp_path), layout, ("all",))
    (tmp_path / "above" / "dataset.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=f"name {tmp_path}/above as the source"):
        sources.list_source(str(tmp_path), layout, ("all",))
    with pytest.raises(DataError, match=r"has no column (image_id|filestem): expected that of"):
        sources.list_source(f"{tmp_path}/above", layout, ("all",))


@pytest.mark.parametrize(
    ("layout", "old", "new", "sentence"),
    [
        ("fracatlas", "IMG0000002", "IMG0000001", "line 3: IMG0000001.jpg was listed in line 2"),
        ("fracatlas", "IMG0000002", "../IMG0000002", "line 3: image_id is '../IMG0000002.jpg'"),
        ("fracatlas", "IMG0000002.jpg", "", "line 3: the column image_id is blank"),
        ("graz", "0001_01_b", "0001_01_a", "line 3: 0001_01_a was listed in line 2 already"),
        ("graz", "0001_01_b", "..", r"line 3: filestem is '\.\.'; expected a name without folders"),
        ("graz", "0001_01_b,1", "0001_01_b,", "line 3: the column patient_id is blank"),
        ("graz", "0001_01_b,1,1", "0001_01_b,1,", "line 3: the column study_number is blank"),
        ("graz", "0001_01_b,1,1", "0001_01_b,1", "line 3: expected 15 cells as in the header"),
    ],
)
def test_a_row_that_names_no_image_of_its_own_is_refused(tmp_path, layout, old, new, sentence):
    make, rows = {"fracatlas": (fracatlas, ROWS), "graz": (graz, GRAZ_ROWS)}[layout]
    source = make(tmp_path, *rows)
    table = tmp_path / "dataset.csv"
    table.write_text(table.read_text().replace(old, new), encoding="utf-8-sig")
    with pytest.raises(DataError, match=sentence):
        sources.list_source(source, layout, ("all",))


def test_a_file_of_fracatlas_that_is_there_twice(tmp_path):
    source = fracatlas(tmp_path, *ROWS)
    (tmp_path / "images" / "Fractured" / "IMG0000001.jpg").write_bytes(JPEG)
    with pytest.raises(DataError, match="are the same image of FracAtlas"):
        sources.list_source(source, "fracatlas", ("all",))


@pytest.mark.parametrize(
    ("layout", "make", "rows"), [("fracatlas", fracatlas, ROWS), ("graz", graz, GRAZ_ROWS)]
)
def test_a_word_in_the_place_of_a_flag_is_refused(tmp_path, layout, make, rows):
    source = make(tmp_path, *rows)
    table = tmp_path / "dataset.csv"
    table.write_text(table.read_text().replace(",1,", ",perhaps,").replace("1.0", "perhaps"))
    with pytest.raises(DataError, match="is 'perhaps'; expected 0 or 1"):
        sources.list_source(source, layout, ("all",))
