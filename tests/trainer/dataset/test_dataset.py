"""These tests check listing, splits by patient, and the errors before anything is written."""

import collections
import pathlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import radiograph
from trainer.dataset import sources, splits, summary
from trainer.dataset.encode import Encoded, encode
from trainer.dataset.example import Example
from trainer.dataset.locate import locate
from trainer.dataset.threads import map_in_threads
from trainer.errors import ConfigError, DataError

HUMERUS = ("XR_HUMERUS",)
PIXEL = cv2.imencode(".png", np.full((5, 4), 200, np.uint8))[1].tobytes()
MURA = (
    "train/XR_HUMERUS/patient00001/study1_positive/image1.png",
    "train/XR_HUMERUS/patient00001/study1_positive/image2.png",
    "train/XR_HUMERUS/patient00002/study1_negative/image1.png",
    "valid/XR_HUMERUS/patient00003/study1_negative/image1.png",
)


def write(root: pathlib.Path, *paths: str) -> str:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PIXEL)
    return str(root)


def list_examples(source: str, layout: str, body_parts: tuple[str, ...]) -> list[Example]:
    return list(sources.list_source(source, layout, body_parts).examples)


def manifest(root: pathlib.Path, text: str, encoding: str = "utf-8") -> str:
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text(text, encoding=encoding)
    return str(root / "labels.csv")


def example(
    path: str, label: int = 0, patient: str = "", study: str = "", split: str | None = None
) -> Example:
    return Example(path, path, label, patient or path, study or path, split)


# MURA


@pytest.mark.parametrize("above", ["", "MURA-v1.1/"])
@pytest.mark.parametrize("part", ["XR_HUMERUS/", ""])
@pytest.mark.parametrize("scheme", ["", "file://"])  # a URL takes the way of object stores
def test_mura_folder_levels_are_optional(tmp_path, above, part, scheme):
    write(tmp_path, *(above + path.replace("XR_HUMERUS/", part) for path in MURA))
    listed = list_examples(scheme + str(tmp_path), "mura", HUMERUS)
    assert [item.path for item in listed] == [
        above + path.replace("XR_HUMERUS/", part) for path in MURA
    ]
    assert [item.label for item in listed] == [1, 1, 0, 0]
    assert [item.split for item in listed] == ["train", "train", "train", "test"]
    assert [item.patient_id for item in listed] == [
        "patient00001",
        "patient00001",
        "patient00002",
        "patient00003",
    ]
    assert [item.study_id for item in listed] == [
        f"{part}patient00001/study1",
        f"{part}patient00001/study1",
        f"{part}patient00002/study1",
        f"{part}patient00003/study1",
    ]
    assert all(item.attributes == ({"body_part": "XR_HUMERUS"} if part else {}) for item in listed)
    assert pathlib.Path(listed[0].uri.removeprefix("file://")).read_bytes() == PIXEL


def test_mura_omits_hidden_files_and_those_outside_the_layout(tmp_path):
    elbow = "train/XR_ELBOW/patient00001/study1_negative/image1.png"
    write(
        tmp_path,
        *MURA,
        elbow,
        "train/XR_HUMERUS/patient00001/study1_positive/._image1.png",
        "__MACOSX/train/XR_HUMERUS/patient00001/study1_positive/image1.png",
        ".cache/image1.png",
        "train_image_paths.csv",
        "SIMULATED.txt",
    )
    listing = sources.list_source(str(tmp_path), "mura", HUMERUS)
    assert [item.path for item in listing.examples] == list(MURA)
    assert [(item.path, item.reason) for item in listing.omissions] == [
        ("SIMULATED.txt", "outside_layout"),
        (elbow, "other_body_part"),
        ("train_image_paths.csv", "outside_layout"),
    ]
    assert sources.is_simulated(str(tmp_path), "mura")


ELBOW = "train/XR_ELBOW/patient00001/study1_negative/image1.png"


def test_mura_one_of_several_body_parts(tmp_path):
    write(tmp_path, *MURA, ELBOW)
    assert len(list_examples(str(tmp_path), "mura", HUMERUS)) == 4
    assert [item.path for item in list_examples(str(tmp_path), "mura", ("xr_elbow",))] == [ELBOW]


@pytest.mark.parametrize("parts", [("all",), ("XR_HUMERUS", "XR_ELBOW")])
def test_mura_one_patient_in_several_body_parts(tmp_path, parts):
    write(tmp_path, *MURA, ELBOW)
    listed = list_examples(str(tmp_path), "mura", parts)
    assert len(listed) == 5
    # The same person, yet two studies, so that two labels are no contradiction.
    assert {item.study_id for item in listed if item.patient_id == "patient00001"} == {
        "XR_ELBOW/patient00001/study1",
        "XR_HUMERUS/patient00001/study1",
    }
    splits.check_groups(listed)


def test_mura_missing_body_part_lists_those_present(tmp_path):
    write(tmp_path, *MURA, "train/XR_ELBOW/patient00001/study1_negative/image1.png")
    with pytest.raises(
        ConfigError, match="lacks the body part XR_HAND; it holds XR_ELBOW, XR_HUMERUS"
    ):
        list_examples(str(tmp_path), "mura", ("XR_HAND", "XR_ELBOW"))


def test_two_mura_trees_are_an_error(tmp_path):
    write(tmp_path, *MURA, *("MURA-v1.1/" + path for path in MURA))
    with pytest.raises(DataError, match="different folder levels"):
        list_examples(str(tmp_path), "mura", HUMERUS)


def test_a_source_without_mura_layout_names_what_was_found(tmp_path):
    with pytest.raises(DataError, match=r"expected paths such as train/XR_HUMERUS.*found no image"):
        list_examples(str(tmp_path), "mura", HUMERUS)
    write(tmp_path, "positive/a.png")
    with pytest.raises(DataError, match=r"found positive/a\.png"):
        list_examples(str(tmp_path), "mura", HUMERUS)


@pytest.mark.parametrize(
    ("below", "way_out"),
    [
        ("..", "name {tree} as the source"),
        ("MURA-v1.1/train", "name {tree} as the source"),
        ("MURA-v1.1/train/XR_HUMERUS", "name {tree} as the source"),
        ("../..", "name {tree} or {other} as the source"),
    ],
)
def test_mura_named_a_level_too_high_or_too_low(tmp_path, monkeypatch, below, way_out):
    tree, other = tmp_path / "a/b", tmp_path / "c"
    write(tree, *("MURA-v1.1/" + path for path in MURA))
    write(other, *MURA)
    source = (tree / below).resolve()
    with pytest.raises(DataError) as caught:
        list_examples(str(source), "mura", HUMERUS)
    assert str(caught.value).endswith(way_out.format(tree=tree, other=other))
    monkeypatch.chdir(tree / "MURA-v1.1")
    with pytest.raises(DataError, match=r"; name \. as the source$"):
        list_examples("train/XR_HUMERUS", "mura", HUMERUS)


def test_mura_in_any_case(tmp_path):
    write(tmp_path / "as_is", *MURA)
    write(tmp_path / "lower", *(path.lower().replace("positive", "Positive") for path in MURA))
    as_is, lower = (
        list_examples(str(tmp_path / name), "mura", HUMERUS) for name in ("as_is", "lower")
    )
    assert [item.path for item in lower] != [item.path for item in as_is]
    for name in ("label", "patient_id", "study_id", "split", "attributes"):
        assert [getattr(item, name) for item in lower] == [getattr(item, name) for item in as_is]


def test_mura_without_folders_of_body_parts_logs_that_all_images_are_taken(tmp_path, caplog):
    write(tmp_path, *(path.replace("XR_HUMERUS/", "") for path in MURA))
    assert len(list_examples(str(tmp_path), "mura", ("XR_WRIST",))) == len(MURA)
    assert "has no folders of body parts: all of its images are taken for XR_WRIST" in caplog.text


@pytest.mark.parametrize("layout", ["mura", "folders", "manifest"])
def test_no_such_source(tmp_path, layout):
    with pytest.raises(DataError, match=r"nowhere is not a (folder|file)"):
        list_examples(str(tmp_path / "nowhere"), layout, HUMERUS)


def test_unknown_layout(tmp_path):
    with pytest.raises(
        ConfigError,
        match="unknown layout 'zip': expected one of mura, folders, manifest, fracatlas, graz",
    ):
        list_examples(str(tmp_path), "zip", HUMERUS)


# Class folders


@pytest.mark.parametrize(
    ("negative", "positive"), [("negative", "positive"), ("0", "1"), ("Normal", "ABNORMAL")]
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folders(tmp_path, negative, positive, scheme):
    write(
        tmp_path,
        f"{positive}/a.png",
        f"{positive}/deep/er/a.dcm",
        f"{negative}/no_suffix",
        "masks/a.png",
        "x.png",
        "notes.txt",
    )
    listed = {item.path: item for item in list_examples(scheme + str(tmp_path), "folders", HUMERUS)}
    assert {path: item.label for path, item in listed.items()} == {
        f"{positive}/a.png": 1,
        f"{positive}/deep/er/a.dcm": 1,
        f"{negative}/no_suffix": 0,
    }
    assert len({item.patient_id for item in listed.values()}) == 3
    assert {item.split for item in listed.values()} == {None}


def test_folders_below_splits(tmp_path):
    write(
        tmp_path,
        "Train/positive/a.png",
        "train/normal/b.png",
        "val/1/deep/c.png",
        "valid/0/d.png",
        "test/abnormal/e.png",
    )
    write(tmp_path, "test/masks/f.png", "negative/test/g.png", "other/positive/h.png")
    listed = {
        item.path: (item.split, item.label)
        for item in list_examples(str(tmp_path), "folders", HUMERUS)
    }
    assert listed == {
        "Train/positive/a.png": ("train", 1),
        "train/normal/b.png": ("train", 0),
        "val/1/deep/c.png": ("validation", 1),
        "valid/0/d.png": ("validation", 0),
        "test/abnormal/e.png": ("test", 1),
        "negative/test/g.png": (None, 0),
    }


@pytest.mark.parametrize(
    ("paths", "found", "way_out"),
    [
        (
            ["images/positive/a.png", "images/negative/b/c.png", "x.png"],
            "found images, x.png",
            "; name {root}/images as the source",
        ),
        (["a/b/0/a.png"], "found a", "; name {root}/a/b as the source"),
        (
            ["a/positive/a.png", "b/positive/b.png"],
            "found a, b",
            "; rename them, or list the files in a CSV file path,label",
        ),
        (
            ["Fractured/a.png"],
            "found Fractured",
            "; rename them, or list the files in a CSV file path,label",
        ),
    ],
)
def test_folders_without_classes(tmp_path, paths, found, way_out):
    write(tmp_path, *paths)
    with pytest.raises(DataError) as caught:
        list_examples(str(tmp_path), "folders", HUMERUS)
    assert "no class folders with images: expected negative and positive" in str(caught.value)
    assert found + way_out.format(root=tmp_path) in str(caught.value)


# Manifest


def test_manifest_columns_and_attributes(tmp_path):
    text = (
        "Path, label ,patient,study,split,site\n"
        "a.png,0,p1,1,train,north\n"
        "sub/../b.png,positive,p1,2,valid,\n"
        './c.png,Abnormal,p2,1,test,"a, b"\n'
    )
    listed = list_examples(manifest(tmp_path, text, "utf-8-sig"), "manifest", HUMERUS)
    assert listed == [
        Example("a.png", f"{tmp_path}/a.png", 0, "p1", "p1/1", "train", {"site": "north"}),
        Example("b.png", f"{tmp_path}/b.png", 1, "p1", "p1/2", "validation", {"site": ""}),
        Example("c.png", f"{tmp_path}/c.png", 1, "p2", "p2/1", "test", {"site": "a, b"}),
    ]


def test_manifest_absolute_remote_and_inside_paths(tmp_path):
    text = f"image,label\n/elsewhere/a.png,0\ngs://bucket/b.png,1\n{tmp_path}/in/c.png,1\n"
    listed = list_examples(manifest(tmp_path, text), "manifest", HUMERUS)
    assert [(item.path, item.uri) for item in listed] == [
        ("/elsewhere/a.png", "/elsewhere/a.png"),
        ("gs://bucket/b.png", "gs://bucket/b.png"),
        ("in/c.png", f"{tmp_path}/in/c.png"),
    ]


def test_manifest_patient_falls_back_on_study_then_on_image(tmp_path):
    by_study = list_examples(
        manifest(tmp_path, "path,label,study\na,0,s\nb,0,s\nc,1,t\n"), "manifest", HUMERUS
    )
    assert [(item.patient_id, item.study_id) for item in by_study] == [
        ("s", "s"),
        ("s", "s"),
        ("t", "t"),
    ]
    alone = list_examples(manifest(tmp_path, "path,label\na,0\nb,1\n"), "manifest", HUMERUS)
    assert [(item.patient_id, item.study_id) for item in alone] == [("a", "a"), ("b", "b")]


def test_manifest_first_alias_wins_and_the_other_stays_an_attribute(tmp_path):
    (item,) = list_examples(
        manifest(tmp_path, "file,label,group,patient\na,1,g,p\n"), "manifest", HUMERUS
    )
    assert (item.patient_id, item.attributes) == ("p", {"group": "g"})


@pytest.mark.parametrize(
    "text",
    [
        "path;label;patient\na;1;p\nb;0;q\n",
        "Path\tLabel\tPatient\na\t1\tp\nb\t0\tq\n",
        "\npath;label;patient\na;1;p\nb;0;q\n",
        " \n;;\npath;label;patient\na;1;p\nb;0;q\n",
        "sep=;\npath;label;patient\na;1;p\nb;0;q\n",
        '"sep=\t"\r\npath\tlabel\tpatient\r\na\t1\tp\r\nb\t0\tq\r\n',
        "filename,label,PatientID\na,1.0,p\nb,0.0,q\n",
        "image_path,label,Patient ID\na,yes,p\nb,no,q\n",
        "file_path,label,subject\na,TRUE,p\nb,FALSE,q\n",
    ],
)
def test_a_manifest_as_table_programs_write_it(tmp_path, text):
    """An unrecognised patient column would be an attribute, and its images in several splits."""
    listed = list_examples(manifest(tmp_path, text), "manifest", HUMERUS)
    assert [(item.path, item.label, item.patient_id, dict(item.attributes)) for item in listed] == [
        ("a", 1, "p", {}),
        ("b", 0, "q", {}),
    ]


def test_the_column_of_paths_tells_the_separator(tmp_path):
    text = 'path;"label";"dose, mGy, eff";a,b,c\na;1;0,5;x\n'
    (item,) = list_examples(manifest(tmp_path, text), "manifest", HUMERUS)
    assert dict(item.attributes) == {"dose, mgy, eff": "0,5", "a,b,c": "x"}


def test_a_header_of_one_endless_cell_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match="line 1 is not CSV: field larger"):
        list_examples(manifest(tmp_path, "x" * 200_000 + "\n"), "manifest", HUMERUS)


def test_an_error_behind_blank_lines_names_its_own_line(tmp_path):
    with pytest.raises(DataError, match="line 4: "):
        list_examples(manifest(tmp_path, "\nsep=;\npath;label\na\n"), "manifest", HUMERUS)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_text_with_two_or_four_bytes_a_letter_and_no_mark_is_refused_by_name(tmp_path, encoding):
    source = manifest(tmp_path, "path,label\na,1\n", encoding)
    with pytest.raises(DataError, match=r"not text in UTF-8(, nor| or) in? ?UTF-16"):
        list_examples(source, "manifest", HUMERUS)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("path,label\na,0\nb,1\n", "each image counts as one"),
        ("path,label,study\na,0,s\nb,0,s\nc,1,t\n", "each study counts as one"),
        ("path,label,patient\na,0,p\nb,1,q\n", None),
        ("path,label,patient,study\na,0,p,1\nb,1,q,1\n", None),
    ],
)
def test_a_manifest_without_patients_is_warned_of(tmp_path, text, warning):
    warnings = splits.list_patient_warnings(
        list_examples(manifest(tmp_path, text), "manifest", HUMERUS)
    )
    assert len(warnings) == (warning is not None) and all(warning in one for one in warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with the columns path,label.* found an empty file"),
        ("name,label\na,1\n", "has no column path: expected .* found name,label"),
        ("path,diagnosis\na,1\n", "has no column label"),
        ("path,label\n", "lists no file"),
        ("path,label\na,2\n", "line 2: the label is '2'; expected one of 0, negative"),
        ("path,label\n,1\n", "line 2: the column path is blank"),
        ("path,label,patient\na,1,p\nb,1,\n", "line 3: the column patient is blank"),
        ("path,label,patient\na,1,p\nb,1,NaN\n", "line 3: the column patient is blank"),
        ("path,label,split\na,1,dev\n", "line 2: the split is 'dev'; expected one of train"),
        ("path,label\na,1\n./a,1\n", "line 3: a was listed in line 2 already"),
        ("path,label\na,1,x\n", "line 2: expected 2 cells as in the header, got 3"),
        ("path,label,label\na,1,0\n", "the columns need different names"),
        (",path,label\n0,a,1\n", "column 1 has no name in the header; name it in UTF-8 or remove"),
        ("path,label,\na,1,\n", "column 3 has no name in the header"),
        ("path,label,source_mode\na,1,RGB\n", "the column source_mode"),
        ('path,label\n"a,1\n', "is not CSV"),
    ],
)
def test_manifest_errors_name_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        list_examples(manifest(tmp_path, text), "manifest", HUMERUS)


@pytest.mark.parametrize("spelling", ["../{here}/a", "{folder}/a", "file://{folder}/a", "./x/../a"])
def test_a_file_under_two_spellings_is_listed_twice(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    other = spelling.format(folder=tmp_path, here=tmp_path.name)
    manifest(tmp_path, f"path,label,patient\na,0,p\n{other},1,q\n")
    for source in ("labels.csv", f"{tmp_path}/labels.csv"):
        with pytest.raises(DataError, match=r"line 3: .* was listed in line 2 already"):
            list_examples(source, "manifest", HUMERUS)


def test_manifest_not_utf8(tmp_path):
    with pytest.raises(DataError, match="not text in UTF-8"):
        list_examples(manifest(tmp_path, "path,label\nmüll,1\n", "latin-1"), "manifest", HUMERUS)


def test_manifest_of_the_real_radiographs(shared):
    listed = list_examples(str(shared / "data/fracatlas_shoulder/labels.csv"), "manifest", HUMERUS)
    assert (
        len(listed),
        sum(item.label for item in listed),
        len({item.patient_id for item in listed}),
    ) == (349, 63, 204)
    assert all(pathlib.Path(item.uri).is_file() for item in listed)
    assert {"hardware", "width", "height"} <= listed[0].attributes.keys()
    assert not {"file", "label", "group"} & listed[0].attributes.keys()


# Splits


def test_position_is_the_documented_hash():
    # `echo -n 0/patient00001 | sha256sum` (coreutils) begins with these 16 digits. The first 53
    # bits are the position.
    assert splits.compute_position("patient00001", 0) == (0x3D69A4B3F45E5770 >> 11) / 2**53


def test_position_is_uniform():
    places = [splits.compute_position(f"patient{number:05d}", 0) for number in range(10_000)]
    counts, _ = np.histogram(places, bins=10, range=(0, 1))
    assert np.abs(counts - 1000).max() < 120  # four standard deviations of a binomial


patients = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True)


@settings(deadline=None, max_examples=60)
@given(patients, patients, st.floats(0, 0.5), st.floats(0, 0.49), st.integers(0, 5), st.booleans())
def test_new_patients_leave_the_others_in_their_splits(
    old, new, validation, test, seed, official_test
):
    def chosen(names):
        listed = [
            example(f"{name}/{image}", patient=name, split="train")
            for name in names
            for image in range(2)
        ]
        listed += [example("official", split="test")] if official_test else []
        return {item.path: item.split for item in splits.assign(listed, validation, test, seed)}

    before, after = chosen(old), chosen(sorted({*old, *new}))
    assert before.items() <= after.items()
    assert all(after[f"{name}/0"] == after[f"{name}/1"] for name in old)


def test_fractions_are_of_all_patients():
    listed = [example(str(number)) for number in range(4000)]
    counts = collections.Counter(item.split for item in splits.assign(listed, 0.15, 0.2, seed=0))
    assert counts["test"] / 4000 == pytest.approx(0.2, abs=0.02)
    assert counts["validation"] / 4000 == pytest.approx(0.15, abs=0.02)


def test_named_splits_stay_and_take_no_share():
    listed = [example(str(number), split="train") for number in range(500)] + [
        example("official", split="test")
    ]
    counts = collections.Counter(
        item.split for item in splits.assign(listed, 0.15, 0.9 - 0.15, seed=0)
    )
    assert counts["test"] == 1 and counts["validation"] > 50
    listed.append(example("v", split="validation"))
    assert [item.split for item in splits.assign(listed, 0.15, 0.2, seed=0)] == [
        item.split for item in listed
    ]


@pytest.mark.parametrize("fractions", [(-0.1, 0.2), (0.15, 1.0), (0.5, 0.5), (float("nan"), 0.2)])
def test_impossible_fractions(fractions):
    with pytest.raises(ConfigError, match="fraction"):
        splits.assign([example("a")], *fractions, seed=0)


def test_patient_on_both_sides():
    with pytest.raises(
        DataError, match=r"patient p is in more than one split \(a in train, b in test\); 1 in all"
    ):
        splits.check_groups(
            [example("a", patient="p", split="train"), example("b", patient="p", split="test")]
        )


def test_study_with_two_labels():
    with pytest.raises(
        DataError,
        match=r"study s has two labels \(b is negative, a is positive\); 1 in all: all images of a "
        r"study share a label; correct them, or name other studies in the column study",
    ):
        splits.check_groups(
            [example("a", 1, "p", "s", "train"), example("b", 0, "p", "s", "train")]
        )


def test_training_needs_both_classes_and_the_rest_only_a_warning():
    train = [example("a", 0, split="train"), example("b", 1, split="train")]
    with pytest.raises(DataError, match="the train split has no positive images"):
        splits.check_classes(train[:1])
    with pytest.raises(DataError, match="the train split has no negative and no positive images"):
        splits.check_classes([example("c", split="test")])
    no_validation, one_class = splits.check_classes([*train, example("c", 1, split="test")])
    assert "the validation split has no negative and no positive images (0 in all)" in no_validation
    assert (
        "the test split has no negative images (1 in all)" in one_class
        and "--test_fraction" in one_class
    )


# What is kept of a file


@pytest.mark.parametrize(("name", "reason"), [("", "unreadable"), ("nothing.png", "missing")])
def test_a_folder_or_nothing_at_a_listed_path_is_a_rejection(tmp_path, name, reason):
    assert encode(Example("x", str(tmp_path / name), 0, "p", "s"), 32).reason == reason


def test_map_in_threads_keeps_order_and_passes_errors_on():
    assert list(map_in_threads(lambda number: number * 2, range(100))) == list(range(0, 200, 2))
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda number: 1 // number, [1, 0, 1]))


def test_fingerprint_depends_on_content_not_on_order_or_place():
    first, second = example("a", 0, split="train"), example("b", 1, split="train")
    base = summary.compute_fingerprint([first, second], ["x", "y"], 64)
    elsewhere = [
        Example("b", "/other/b", 1, "b", "b", "train"),
        Example("a", "/other/a", 0, "a", "a", "train"),
    ]
    assert summary.compute_fingerprint(elsewhere, ["y", "x"], 64) == base
    changed = [
        summary.compute_fingerprint([first, second], ["x", "z"], 64),
        summary.compute_fingerprint([first, second], ["x", "y"], 65),
        summary.compute_fingerprint([first, example("b", 0, split="train")], ["x", "y"], 64),
        summary.compute_fingerprint([first, example("b", 1, split="test")], ["x", "y"], 64),
        summary.compute_fingerprint(
            [first, example("b", 1, patient="a", split="train")], ["x", "y"], 64
        ),
    ]
    assert len({base, *changed}) == 6


def test_copies_across_splits_or_labels_are_warned_of():
    outcomes = [
        Encoded(example("a", 0, split="train"), "same"),
        Encoded(example("b", 0, split="test"), "same"),
        Encoded(example("c", 0, split="train"), "twice"),
        Encoded(example("d", 1, split="train"), "twice"),
        Encoded(example("e", 1, split="test"), "twice", reason="truncated"),
    ]
    assert summary.list_duplicate_warnings(outcomes) == [
        "files of the same bytes lie in more than one split, such as a and b; 1 in all",
        "files of the same bytes have both labels, such as c and d; 1 in all",
    ]


def test_images_with_a_warning_are_counted_by_its_code():
    outcomes = [
        Encoded(example("a", 0), "1"),
        Encoded(example("b", 0), "2", warnings=("blank",)),
        Encoded(example("c", 0), "3", warnings=("blank", "ignored_element")),
    ]
    assert summary.list_image_warnings(outcomes[:1]) == []
    assert summary.list_image_warnings(outcomes) == [
        f"images with the warning {said} ({radiograph.WARNINGS[said.split(':')[0]]})"
        for said in ("blank: 2, such as b", "ignored_element: 1, such as c")
    ]


# Data set folders


def test_locate(tmp_path):
    with pytest.raises(DataError, match="humerus-prepare"):
        locate(str(tmp_path))
    for name in ("incomplete.AB12_1.0.0", "1.0.0"):
        (tmp_path / "radiographs/mura_320" / name).mkdir(parents=True)
    (tmp_path / "radiographs/mura_320/incomplete.AB12_1.0.0/dataset_info.json").touch()
    with pytest.raises(DataError):
        locate(str(tmp_path))
    only = tmp_path / "radiographs/mura_320/1.0.0"
    (only / "dataset_info.json").touch()
    assert locate(f"{tmp_path}/") == locate(str(only)) == str(only)
    other = tmp_path / "radiographs/mura_224/1.0.0"
    other.mkdir(parents=True)
    (other / "dataset_info.json").touch()
    with pytest.raises(ConfigError, match=r"holds 2 data sets.*mura_224/1.0.0, .*mura_320/1.0.0"):
        locate(str(tmp_path))
