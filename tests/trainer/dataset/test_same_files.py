"""These tests check that preparation and scoring find the same files."""

import csv
import errno
import os
import pathlib
import socket

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_inference.inputs import sources as scorer
from trainer import storage
from trainer.dataset import sources
from trainer.dataset.prepare import prepare
from trainer.errors import ConfigError, DataError
from trainer.files import regular_file
from trainer.options import PrepareOptions

PNG, JPEG = (
    cv2.imencode(suffix, np.random.default_rng(0).integers(256, size=(6, 5), dtype=np.uint8))[1]
    for suffix in (".png", ".jpg")
)
MURA_STUDIES = (
    "XR_HUMERUS/patient00001/study1_positive",
    "XR_HUMERUS/patient00002/study1_negative",
    "XR_WRIST/patient00001/study2_negative",
)


def write(root: pathlib.Path, *paths: str, content: bytes = PNG.tobytes()) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def list_prepared(root: pathlib.Path) -> dict[str, str]:
    """Return for each file of class folders `taken`, or the reason why it is omitted."""
    listing = sources.list_source(str(root), "folders", ())
    taken = {example.path: "taken" for example in listing.examples}
    omitted = {omission.path: omission.reason for omission in listing.omissions}
    assert not taken.keys() & omitted.keys()
    return taken | omitted


def list_scored(root: pathlib.Path) -> set[str]:
    """Return the names of the scorer's inputs, each of which becomes a row or a rejection."""
    names = [source.name for source in scorer.find(str(root))]
    assert len(names) == len(set(names))
    return set(names)


names = st.sampled_from(
    [
        "positive",
        "negative",
        "train",
        "val",
        "a.png",
        "b.jfif",
        "1.2.840.113619.2.1.77",
        "IM1",
        "notes.txt",
        ".hidden",
        "._a.png",
        "__MACOSX",
        "Thumbs.db",
        "ä.dcm",
    ]
)
entries = st.tuples(
    st.lists(names, min_size=1, max_size=4),
    st.sampled_from(["file", "file", "file", "to the root", "to a sibling", "dangling", "pipe"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, max_size=12))
def test_both_programs_find_the_same_files_in_any_folder(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    write(root, "positive/one.png", "negative/two.png")
    for parts, kind in tree:
        path = root.joinpath(*parts)
        if os.path.lexists(path):  # writing to a pipe would wait for a reader
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.write_bytes(PNG.tobytes())
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                target = {"to the root": root, "to a sibling": root / "positive"}
                path.symlink_to(target.get(kind, root / "nowhere"))
        except OSError:  # a file bears the name of a folder above
            continue
    assert list_prepared(root).keys() == list_scored(root)


def test_class_folders_are_taken_whatever_their_files_are_called(tmp_path):
    named_by_uid = [f"positive/1.2.840.113619.2.1.{number}" for number in range(70, 78)]
    write(tmp_path / "in", *named_by_uid)
    write(tmp_path / "in", *(f"negative/{n}.jfif" for n in range(8)), content=JPEG.tobytes())
    write(tmp_path / "in", "negative/notes.txt", "README", content=b"no image at all")
    result = prepare(
        PrepareOptions(
            str(tmp_path / "in"), "folders", str(tmp_path / "out"), image_size=32, seed=4
        )
    )
    assert sum(counts["images"] for counts in result.info.splits.values()) == 16
    assert result.info.rejections == {"not_an_image": 1} and result.info.omissions == {
        "outside_layout": 1
    }
    with (pathlib.Path(result.directory) / "rejections.csv").open(newline="") as file:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert rows == {"negative/notes.txt": "not_an_image", "README": "outside_layout"}
    table = result.format_table()
    assert "rejected: not_an_image 1; see" in table and "omitted: outside_layout 1; see" in table
    again = prepare(
        PrepareOptions(
            str(tmp_path / "in"), "folders", str(tmp_path / "out"), image_size=32, seed=4
        )
    )
    assert again.reused and again.info.omissions == result.info.omissions


def make_loop(path: pathlib.Path) -> None:
    path.symlink_to(".")


def make_dangling(path: pathlib.Path) -> None:
    path.symlink_to("nowhere")


def make_device(path: pathlib.Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [make_loop, make_dangling, os.mkfifo, make_device, make_socket])
def test_what_is_no_file_is_a_rejection(tmp_path, monkeypatch, make):
    source = tmp_path / "in"
    write(source, *(f"{label}/{n}.png" for label in ("positive", "negative") for n in range(8)))
    monkeypatch.chdir(source)  # the path of a socket must be short
    make(pathlib.Path("positive/again"))
    result = prepare(
        PrepareOptions(str(source), "folders", str(tmp_path / "out"), image_size=32, seed=4)
    )
    assert sum(counts["images"] for counts in result.info.splits.values()) == 16
    assert sum(result.info.rejections.values()) == 1
    assert result.info.rejections.keys() <= {"unreadable", "missing"}


def test_a_name_that_is_not_utf8_is_omitted(tmp_path):
    write(tmp_path, "positive/a.png", "negative/b.png")
    pathlib.Path(os.fsdecode(bytes(tmp_path) + b"/positive/\xff.png")).write_bytes(PNG.tobytes())
    assert list_prepared(tmp_path)["positive/\\xff.png"] == "name_not_utf8"


# MURA's own lists


@pytest.fixture(params=["MURA-v1.1", "renamed", "."])
def mura(request, tmp_path, monkeypatch) -> tuple[str, dict[str, tuple[int, str]]]:
    """Return the folder with MURA's lists, and label and split of each image by its path.

    The lists lie in MURA's folder, in one of another name, or in the folder above.
    """
    root = tmp_path / request.param
    prefix = "MURA-v1.1/" if request.param == "." else ""
    images = {}
    for folder, split in (("train", None), ("valid", "test")):
        for study in MURA_STUDIES:
            for number in (1, 2):
                path = f"{prefix}{folder}/{study.replace('patient', f'patient{len(folder)}')}"
                path += f"/image{number}.png"
                write(root, path)
                images[path] = (int("positive" in path), split or "train")
    with_root = {path: f"MURA-v1.1/{path.removeprefix('MURA-v1.1/')}" for path in images}
    for folder in ("train", "valid"):
        listed = [with_root[path] for path in images if f"{folder}/" in path]
        studies = sorted({path.rpartition("/")[0] for path in listed})
        (root / f"{folder}_image_paths.csv").write_text("\n".join(listed) + "\n")
        (root / f"{folder}_labeled_studies.csv").write_text(
            "".join(f"{study}/,{int('positive' in study)}\n" for study in studies)
        )
    return str(root), images


@pytest.mark.parametrize("folder", ["train", "valid"])
@pytest.mark.parametrize("kind", ["image_paths", "labeled_studies"])
def test_the_lists_of_mura_are_manifests(mura, folder, kind):
    root, images = mura
    listed = sources.list_source(f"{root}/{folder}_{kind}.csv", "manifest", ("all",)).examples
    expected = {path: value for path, value in images.items() if f"{folder}/" in path}
    assert {item.path: (item.label, item.split) for item in listed} == expected
    assert all(pathlib.Path(item.uri).read_bytes() == PNG.tobytes() for item in listed)
    assert {item.attributes["body_part"] for item in listed} == {"XR_HUMERUS", "XR_WRIST"}
    as_folder = sources.list_source(root, "mura", ("all",)).examples
    by_path = {item.path: item for item in as_folder}
    assert all(by_path[item.path] == item for item in listed)


def test_a_list_of_mura_is_read_whatever_lies_beside_it(mura, monkeypatch):
    """A folder that may not be listed is a double: root may list everything."""
    root, _ = mura
    (pathlib.Path(root) / os.fsdecode(b"r\xf6ntgen.png")).write_bytes(b"")
    source = f"{root}/train_image_paths.csv"
    listed = sources.list_source(source, "manifest", ("all",)).examples
    monkeypatch.setattr(storage, "list_folder", _refuse)
    assert sources.list_source(source, "manifest", ("all",)).examples == listed
    assert all(pathlib.Path(item.uri).exists() for item in listed)


def test_the_label_of_a_list_replaces_that_of_the_folder(tmp_path):
    write(tmp_path, *(f"MURA-v1.1/train/{study}/image1.png" for study in MURA_STUDIES))
    (tmp_path / "list.csv").write_text(f"MURA-v1.1/train/{MURA_STUDIES[0]}/,0\n")
    (item,) = sources.list_source(str(tmp_path / "list.csv"), "manifest", ("all",)).examples
    assert item.label == 0


@pytest.mark.parametrize("kind", ["image_paths", "labeled_studies"])
def test_a_list_of_mura_holds_all_body_parts_of_which_some_are_taken(mura, kind):
    root, images = mura
    source = f"{root}/train_{kind}.csv"
    listing = sources.list_source(source, "manifest", ("XR_WRIST",))
    assert [item.path for item in listing.examples] == [
        path for path in sorted(images) if "train/XR_WRIST" in path
    ]
    assert {item.reason for item in listing.omissions} == {"other_body_part"}
    assert listing.body_parts == ("XR_WRIST",)
    with pytest.raises(ConfigError, match="lacks the body part XR_HAND; it holds XR_HUMERUS, "):
        sources.list_source(source, "manifest", ("XR_HAND",))


def test_a_list_of_mura_may_name_body_parts_that_are_not_there(tmp_path):
    """MURA's list begins with shoulders; a copy may hold the humerus alone, below the list."""
    (tmp_path / "list.csv").write_text(
        "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/,1\n"
        "MURA-v1.1/train/XR_HUMERUS/patient00002/study1_negative/,0\n"
    )
    there = "MURA-v1.1/train/XR_HUMERUS/patient00002/study1_negative/image1.png"
    write(tmp_path, there)
    listed = sources.list_source(str(tmp_path / "list.csv"), "manifest", ("XR_HUMERUS",)).examples
    assert [item.path for item in listed] == [there]
    assert there in [source.name for source in scorer.find(str(tmp_path / "list.csv"))]


def _refuse(*arguments: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_study_that_may_not_be_listed_is_a_rejection_of_its_own(mura, monkeypatch):
    """A folder that may not be listed is a double: root may list everything."""
    root, images = mura
    list_folder = storage.list_folder
    monkeypatch.setattr(
        storage,
        "list_folder",
        lambda folder: _refuse() if "XR_WRIST" in folder else list_folder(folder),
    )
    source = f"{root}/train_labeled_studies.csv"
    listed = sources.list_source(source, "manifest", ("XR_WRIST",)).examples
    (study,) = {path.rpartition("/")[0] for path in images if "train/XR_WRIST" in path}
    assert [item.path for item in listed] == [study]


def test_a_manifest_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    """A file that may not be read is a double: root may read everything."""
    monkeypatch.setattr(regular_file, "read", _refuse)
    with pytest.raises(DataError, match=r"list\.csv cannot be read \(Permission denied\); check"):
        sources.list_source(str(tmp_path / "list.csv"), "manifest", ())


@pytest.mark.parametrize("table", [False, True])
def test_labels_that_contradict_the_folders_of_mura_are_warned_of(tmp_path, table):
    folders = [f"train/{study}" for study in MURA_STUDIES]
    write(tmp_path, *(f"{folder}/image1.png" for folder in folders))
    for turned, expected in ((False, 0), (True, 1)):
        rows = [
            f"{folder}/{'image1.png' if table else ''},{int(('positive' in folder) != turned)}\n"
            for folder in folders
        ]
        (tmp_path / "list.csv").write_text("path,label\n" * table + "".join(rows))
        listing = sources.list_source(str(tmp_path / "list.csv"), "manifest", ("all",))
        assert len(listing.warnings) == expected
    assert f"labels of {len(folders)} of {len(folders)} images contradict" in listing.warnings[0]


@pytest.mark.parametrize("layout", ["folders", "manifest", "graz"])
def test_body_parts_are_refused_where_there_are_none(tmp_path, layout):
    write(tmp_path, "positive/a.png", "negative/b.png")
    (tmp_path / "list.csv").write_text("path,label\npositive/a.png,1\nnegative/b.png,0\n")
    source = str(tmp_path / "list.csv") if layout == "manifest" else str(tmp_path)
    with pytest.raises(ConfigError, match=r"--body_parts=XR_WRIST: .* has no body parts"):
        sources.list_source(source, layout, ("XR_WRIST",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("other.png", "line 2: expected a path of MURA"),
        (f"MURA-v1.1/train/{MURA_STUDIES[0]}/,2", "line 2: the label is '2'; expected one of"),
        (f"MURA-v1.1/train/{MURA_STUDIES[0]}/,1,x", "line 2: expected a path of MURA"),
        (f"MURA-v1.1/train/{MURA_STUDIES[0]}/,1", "line 2: .* was listed in line 1 already"),
    ],
)
def test_a_wrong_row_of_a_list_is_named(tmp_path, row, message):
    write(tmp_path, f"MURA-v1.1/train/{MURA_STUDIES[0]}/image1.png")
    (tmp_path / "list.csv").write_text(f"MURA-v1.1/train/{MURA_STUDIES[0]}/,1\n{row}\n")
    with pytest.raises(DataError, match=message):
        sources.list_source(str(tmp_path / "list.csv"), "manifest", ("all",))


def test_a_study_without_files_is_a_rejection_of_its_own(tmp_path):
    (tmp_path / "list.csv").write_text(f"MURA-v1.1/train/{MURA_STUDIES[0]}/,1\n")
    (item,) = sources.list_source(str(tmp_path / "list.csv"), "manifest", ("all",)).examples
    assert item.path == f"train/{MURA_STUDIES[0]}" and item.label == 1


# Paths in manifests


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_both_programs_resolve_the_paths_of_a_manifest_alike(tmp_path, monkeypatch, encoding):
    monkeypatch.setenv("HOME", "/home/me")
    write(tmp_path, "real\\name.png")
    cells = ["./a.png", "x/../b.png", " c.png", "d/", "sub\\e.png", "real\\name.png", "~/ä.png"]
    cells += ["gs://bucket/f.png", "/elsewhere/g.png"]
    text = "path,label\n" + "".join(f"{cell},{n % 2}\n,\n" for n, cell in enumerate(cells))
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    examples = sources.list_source(str(tmp_path / "list.csv"), "manifest", ()).examples
    found = {source.uri: source.name for source in scorer.find(str(tmp_path / "list.csv"))}
    assert {example.uri: example.path for example in examples} == found
    assert found[f"{tmp_path}/sub/e.png"] == "sub/e.png" and "/home/me/ä.png" in found


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a\0b.png", "line 3: the path .* contains a NUL byte"),
        ("C:\\data\\a.png", "line 3: .* is a path of Windows"),
        ("D:/data/a.png", "line 3: .* is a path of Windows"),
        (
            "https://host/a.png?token=secret",
            "paths and gs:// .* got one of https://; copy the files",
        ),
        ("s3://bucket/a.png", "paths and gs:// addresses, got one of s3://; copy the files"),
    ],
)
def test_paths_that_cannot_be_read_are_refused(tmp_path, cell, message):
    (tmp_path / "list.csv").write_text(f"path,label\ngood.png,1\n{cell},0\n")
    with pytest.raises(DataError, match=message):
        sources.list_source(str(tmp_path / "list.csv"), "manifest", ())
