"""Which files an input names, and how they and their studies are called."""

import io
import json
import os
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem
from hypothesis import given
from hypothesis import strategies as st

from batch_inference.inputs import sources
from batch_inference.outputs import page_files, picture_paths
from batch_inference.outputs.records import escape_reversibly
from batch_inference.storage import filesystem


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "in"
    for name in [
        "a.png",
        "b/c.JPG",
        "b/.hidden",
        ".git/x.png",
        "b/d/IM0001",
        "[1]/e[2].png",
        "v1.csv/f.png",
    ]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def named(location, *exclude, **how) -> list[str]:
    return sorted(found.name for found in sources.find(str(location), exclude, **how))


def test_a_folder_counts_with_all_but_hidden_files(tree):
    assert named(tree) == ["[1]/e[2].png", "a.png", "b/c.JPG", "b/d/IM0001", "v1.csv/f.png"]
    assert named(f"{tree}/") == named(tree)
    assert sorted(found.uri for found in sources.find(str(tree / "b"))) == [
        f"{tree}/b/c.JPG",
        f"{tree}/b/d/IM0001",
    ]
    assert named(f"file://{tree}") == named(tree)


def test_a_folder_without_its_subfolders(tree):
    assert named(tree, recursive=False) == ["a.png"]
    assert named(tree / "b*", recursive=False) == ["b/c.JPG"]


def test_a_tilde_is_the_home_of_who_asks(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert filesystem.absolute("~/b") == f"{tree}/b"
    assert named("~/b/*.jpg") == ["c.JPG"]
    assert filesystem.absolute("/a/~/b") == "/a/~/b"


def test_relative_inputs_give_absolute_uris(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    assert [found.uri for found in sources.find("in/b/../b/d")] == [f"{tree}/b/d/IM0001"]


def test_patterns(tree):
    assert named(tree / "*.png") == ["a.png"]
    assert named(tree / "**" / "*.png") == ["[1]/e[2].png", "a.png", "v1.csv/f.png"]
    assert named(tree / "b*") == ["b/c.JPG", "b/d/IM0001"], (
        "a folder that matches counts with its files"
    )
    assert named(tree / "?.png") == ["a.png"]
    assert named(tree / "*.dcm") == []


def test_extensions_match_however_they_are_spelt(tree):
    assert named(tree / "b" / "*.jpg") == ["c.JPG"]
    assert named(tree / "**" / "*.JpG") == ["b/c.JPG"]
    assert named(tree / "A*.png") == [], "names are taken as they are spelt"
    assert "b/c.JPG" not in named(tree, "*.jpg")


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["*.png"], ["b/c.JPG", "b/d/IM0001"]),
        (["b"], ["[1]/e[2].png", "a.png", "v1.csv/f.png"]),
        (["b/d"], ["[1]/e[2].png", "a.png", "b/c.JPG", "v1.csv/f.png"]),
        (["d", "a.*"], ["[1]/e[2].png", "b/c.JPG", "v1.csv/f.png"]),
        (["b/*", "v?.csv", "[[]1]"], ["a.png"]),
        (
            ["c", "png", "d/IM0001", ""],
            ["[1]/e[2].png", "a.png", "b/c.JPG", "b/d/IM0001", "v1.csv/f.png"],
        ),
    ],
)
def test_what_is_excluded(tree, exclude, left):
    assert named(tree, *exclude) == left
    (tree / "list.txt").write_text("\n".join(named(tree)))
    assert named(tree / "list.txt", *exclude, "list.txt") == left
    assert sources.has_any(str(tree), exclude) and not sources.has_any(str(tree), ["*"])


def test_results_of_runs_in_subfolders_are_no_inputs(tree):
    before = {pattern: named(tree / pattern) for pattern in ("", "**/*.png", "b/*")}
    results = ("cams/a.png", "originals/b.png", "predictions.jsonl", "summary.json")
    for run in (tree / "scored", tree / "b" / "d" / "scored"):
        for name in results:
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(b"a result")
        (run / "new.png").write_bytes(b"somebody's")
    assert len(named(tree)) == len(before[""]) + 2 * len(results) + 2, "no run has made these"
    for run in (tree / "scored", tree / "b" / "d" / "scored"):
        record = {"model": "m", "engine": "e", "options": {}}
        (run / "run.json").write_text(json.dumps(record))
    new = ["b/d/scored/new.png", "scored/new.png"]
    (tree / "other" / "cams").mkdir(parents=True)
    (tree / "other" / "cams" / "a.png").write_bytes(b"somebody's")
    (tree / "other" / "run.json").write_text("[" * 100_000)
    new += ["other/cams/a.png"]
    assert named(tree) == sorted([*before[""], *new, "other/run.json"])
    assert named(tree / "*" / "cams" / "*.png") == ["other/cams/a.png", "scored/cams/a.png"]
    assert named(tree / "**" / "*.png") == sorted([*before["**/*.png"], *new])
    assert named(tree / "scored" / "cams" / "a.png") == ["a.png"], "it is asked for by its name"


def test_gallery_pages_of_runs_in_subfolders_are_no_inputs(tree):
    run, before = tree / "scored", named(tree)
    for page in ("gallery", "positives"):
        (run / f"{page}_rows").mkdir(parents=True)
        (run / f"{page}_rows" / "images-00000.js").write_bytes(b"gallery.add()")
        (run / f"{page}.html").write_text(page_files.COUNT.format(1))
    (run / "notes.html").write_bytes(b"somebody's")
    (run / "run.json").write_text(json.dumps({"model": "m", "engine": "e", "options": {}}))
    assert named(tree) == sorted([*before, "scored/notes.html"])


def test_what_exists_under_that_very_name_is_no_pattern(tree):
    assert named(tree / "[1]") == ["e[2].png"]
    assert named(tree / "[1]" / "e[2].png") == ["e[2].png"]


def test_one_file(tree):
    assert list(sources.find(str(tree / "a.png"))) == [sources.Source(f"{tree}/a.png", "a.png")]


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "again").symlink_to(tree / "b")
    (tree / "b" / "d" / "up").symlink_to(tree / "b")
    (tree / "dangling").symlink_to(tree / "nowhere")
    assert [name for name in named(tree) if name.startswith(("again", "dangling", "b/d"))] == [
        "again/c.JPG", "again/d/IM0001", "again/d/up", "b/d/IM0001", "b/d/up", "dangling",
    ]  # fmt: skip
    assert named(tree / "**" / "c*") == ["b/c.JPG"]


@pytest.mark.parametrize("target", ["above/input", "above", ".", "/"])
def test_a_link_to_a_folder_that_contains_it_is_not_followed(tmp_path, target):
    top = tmp_path / "above" / "input"
    (top / "a").mkdir(parents=True)
    (top / "a" / "1.png").touch()
    (top / "a" / "up").symlink_to(tmp_path / target)
    assert named(top) == ["a/1.png", "a/up"]


def test_a_linked_folder_does_not_lead_to_what_contains_it(tmp_path):
    shared, top = tmp_path / "shared", tmp_path / "input"
    (shared / "a").mkdir(parents=True)
    (shared / "a" / "1.png").touch()
    (shared / "a" / "up").symlink_to(shared)
    top.mkdir()
    (top / "a").symlink_to(shared / "a")
    assert named(top) == ["a/1.png", "a/up"]


def test_folders_that_link_to_each_other_do_not_multiply(tmp_path):
    for name in range(6):
        (tmp_path / str(name)).mkdir()
        (tmp_path / str(name) / "a.png").touch()
        for other in set(range(6)) - {name}:
            (tmp_path / str(name) / f"to {other}").symlink_to(tmp_path / str(other))
    found = named(tmp_path)
    # Each folder is found once itself and once through a link; all other links are rejected.
    assert len([name for name in found if name.endswith("a.png")]) == 12 and len(found) < 12 + 60
    assert len(set(found)) == len(found)


def test_a_text_manifest(tree):
    manifest = tree / "list.txt"
    lines = (
        f"a.png\r\n\n  {tree}/b/c.JPG\nfile://{tree}/b/d/with%20space\n"
        "gs://bucket/x y/z.png\n/elsewhere/q.png\n"
    )
    manifest.write_text(lines, encoding="utf-8-sig")
    assert list(sources.find(str(manifest))) == [
        sources.Source(uri, name, is_grouped=False)
        for uri, name in (
            (f"{tree}/a.png", "a.png"),
            (f"{tree}/b/c.JPG", "b/c.JPG"),
            (f"{tree}/b/d/with space", "b/d/with space"),
            ("gs://bucket/x y/z.png", "gs://bucket/x y/z.png"),
            ("/elsewhere/q.png", "/elsewhere/q.png"),
        )
    ]


def test_a_large_folder_is_listed_as_it_is_asked_for(tmp_path, monkeypatch):
    for index in range(300):
        (tmp_path / f"{index}.png").touch()
    given = []
    original = os.scandir

    class Watched:
        def __init__(self, folder):
            self.entries = original(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            for entry in self.entries:
                given.append(entry.name)
                yield entry

    monkeypatch.setattr(os, "scandir", Watched)
    assert sources.has_any(str(tmp_path)) and len(given) == 1
    assert len(list(sources.find(str(tmp_path)))) == 300


class MemoryFiles(FileSystem):
    """A remote file system `ram://` that notes how many of its names were asked for."""

    files: ClassVar[list[str]] = []
    given: ClassVar[list[str]] = []

    @classmethod
    def scheme(cls):
        return "ram"

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path in self.files:
            if path.startswith(dir_or_prefix):
                self.given.append(path)
                yield FileMetadata(path, 1)

    def exists(self, path):
        return path in self.files

    def _refuse(self, *_, **__):
        raise NotImplementedError

    join = split = mkdirs = create = open = copy = rename = size = last_updated = checksum = (
        delete
    ) = metadata = _refuse
    __abstractmethods__ = frozenset()


@pytest.fixture
def bucket(monkeypatch):
    files = [
        "ram://b/in/a.PNG",
        "ram://b/in/sub/b.dcm",
        "ram://b/in/sub/",
        "ram://b/in/.git/c.png",
        "ram://b/in2/d.png",
    ]
    monkeypatch.setattr(MemoryFiles, "files", files)
    monkeypatch.setattr(MemoryFiles, "given", [])


def test_remote_folders_patterns_and_files(bucket):
    assert named("ram://b/in/") == named("ram://b/in") == ["a.PNG", "sub/b.dcm"]
    assert named("ram://b/in", recursive=False) == ["a.PNG"]
    assert named("ram://b/in", "sub") == ["a.PNG"]
    assert named("ram://b/i*/*.png") == ["in/a.PNG", "in2/d.png"]
    assert list(sources.find("ram://b/in2/d.png")) == [sources.Source("ram://b/in2/d.png", "d.png")]
    assert not sources.has_any("ram://b/in3")


@pytest.mark.parametrize("above", ["", "MURA-v1.1/"])
@pytest.mark.parametrize("listed", ["image1.png", ""], ids=["images", "studies"])
def test_the_lists_of_mura_are_manifests_in_a_bucket_too(monkeypatch, above, listed):
    study = "train/XR_WRIST/patient00001/study1_positive"
    image, manifest = f"ram://b/{above}{study}/image1.png", f"MURA-v1.1/{study}/{listed}\n"
    monkeypatch.setattr(MemoryFiles, "files", ["ram://b/list.csv", image])
    monkeypatch.setattr(MemoryFiles, "open", lambda *_, **__: io.BytesIO(manifest.encode()))
    assert [found.uri for found in sources.find("ram://b/list.csv")] == [image]


def test_a_remote_folder_is_listed_as_it_is_asked_for(bucket, monkeypatch):
    monkeypatch.setattr(MemoryFiles, "files", [f"ram://b/in/{index}.png" for index in range(1000)])
    assert sources.has_any("ram://b/in") and len(MemoryFiles.given) == 1
    assert len(named("ram://b/in")) == 1000


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "cams/a.png.jpg"),
        (
            "patient00011/study1_positive/image1.png",
            "cams/patient00011/study1_positive/image1.png.jpg",
        ),
        ("a.PNG", r"cams/a\.PNG~[0-9a-f]{16}\.jpg"),
        ("../../etc/passwd", r"cams/_\.\./_\.\./etc/passwd~[0-9a-f]{16}\.jpg"),
        ("/abs/x.png", r"cams/_/abs/x\.png~[0-9a-f]{16}\.jpg"),
        ("a.jpg/b.png", r"cams/a\.jpg~/b\.png~[0-9a-f]{16}\.jpg"),
        ("gs://b/-x.png", r"cams/gs_/_/b/_-x\.png~[0-9a-f]{16}\.jpg"),
    ],
)
def test_picture_names(name, path):
    import re

    assert re.fullmatch(path, picture_paths.cam_path(name, ".jpg"))


def test_each_frame_has_its_own_picture():
    paths = [picture_paths.cam_path("a.dcm", ".jpg", frame) for frame in (None, 0, 1, 11)]
    paths += [
        picture_paths.cam_path(name, ".jpg")
        for name in ("a.dcm_frame0", "a.dcm/frame0", "a.dcm0", "a.dcm\\0frame0")
    ]
    assert len({path.casefold() for path in paths}) == len(paths)
    assert paths[0] == "cams/a.dcm.jpg" and paths[1].startswith("cams/a.dcm_frame0~")


_texts = st.text(
    st.one_of(st.sampled_from("\\udcf"), st.sampled_from(["\udcff", "\udc80", "a"])), max_size=12
)


@given(_texts, _texts)
def test_two_names_never_look_alike(one, other):
    assert (escape_reversibly(one) == escape_reversibly(other)) == (one == other)
    escape_reversibly(one).encode("utf-8")


def test_names_are_told_as_they_are_as_long_as_nobody_can_mistake_them():
    assert escape_reversibly("back\\slash ü.png") == "back\\slash ü.png"
    assert (
        escape_reversibly(os.fsdecode(b"\xff.png"))
        == "\\udcff.png"
        != escape_reversibly("\\udcff.png")
        == "\\\\udcff.png"
    )


_part = st.one_of(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6),
    st.sampled_from(
        [
            "..",
            ".",
            "a",
            "A",
            "a.png",
            "a.PNG",
            "a.png.jpg",
            "a~",
            "x.jpg",
            "X.JPG",
            "ä",
            "é",
            "é",
            "n" * 255,
            "-rf",
            " ",
        ]
    ),
)
_name = st.lists(_part, min_size=1, max_size=6).map("/".join)


@given(
    st.lists(_name, min_size=2, max_size=8, unique=True), st.sampled_from([".jpg", ".png", ".webp"])
)
def test_no_two_inputs_share_a_picture_and_none_escapes(given_names, suffix):
    paths = [picture_paths.cam_path(name, suffix) for name in given_names]
    assert len({path.casefold() for path in paths}) == len(paths)
    for path in paths:
        assert os.path.normpath(path) == path and path.startswith("cams/")
        assert all(
            len(part.encode()) <= 255 and part not in (".", "..") for part in path.split("/")
        )
        # No picture may lie where another needs a folder.
        assert not any(other.casefold().startswith(f"{path.casefold()}/") for other in paths)


@pytest.mark.parametrize("folder", ["MURA-v1.1", "renamed"])
@pytest.mark.parametrize(
    ("name", "lines", "images"),
    [
        (
            "train_image_paths.csv",
            ["MURA-v1.1/train/XR_HUMERUS/patient00001/study1_positive/image1.png"],
            ["train/XR_HUMERUS/patient00001/study1_positive/image1.png"],
        ),
        (
            "valid_labeled_studies.csv",
            [
                "MURA-v1.1/valid/XR_HUMERUS/patient00002/study1_negative/,0",
                "MURA-v1.1/valid/XR_HUMERUS/patient00003/study1_positive/,1",
            ],
            [
                "valid/XR_HUMERUS/patient00002/study1_negative/image1.png",
                "valid/XR_HUMERUS/patient00002/study1_negative/image2.png",
                "valid/XR_HUMERUS/patient00003/study1_positive/",
            ],
        ),
    ],
)
def test_the_lists_of_mura_are_manifests(tmp_path, folder, name, lines, images):
    root = tmp_path / folder
    for image in images:
        if not image.endswith("/"):  # a study without files stands for itself
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            (root / image).write_bytes(b"")
    (root / "valid/XR_HUMERUS/patient00002/study1_negative").mkdir(parents=True, exist_ok=True)
    (root / "valid/XR_HUMERUS/patient00002/study1_negative/.hidden").write_bytes(b"")
    (root / name).write_text("\n".join(lines) + "\n")
    found = sorted(source.name for source in sources.find(str(root / name)))
    assert [item.rstrip("/") for item in found] == [item.rstrip("/") for item in images]
