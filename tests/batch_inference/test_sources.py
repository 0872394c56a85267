"""Which files an input names, and how they and their studies are called."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_inference import names, sources


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "in"
    for name in ["a.png", "b/c.JPG", "b/.hidden", ".git/x.png", "b/d/IM0001", "[1]/e[2].png", "v1.csv/f.png"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def named(location) -> list[str]:
    return [found.name for found in sources.find(str(location))]


def test_a_folder_counts_with_all_but_hidden_files(tree):
    assert named(tree) == ["a.png", "[1]/e[2].png", "b/c.JPG", "b/d/IM0001", "v1.csv/f.png"]
    assert named(f"{tree}/") == named(tree)
    assert [found.uri for found in sources.find(str(tree / "b"))] == [f"{tree}/b/c.JPG", f"{tree}/b/d/IM0001"]
    assert named(f"file://{tree}") == named(tree)


def test_relative_inputs_give_absolute_uris(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    assert [found.uri for found in sources.find("in/b/../b/d")] == [f"{tree}/b/d/IM0001"]


def test_patterns(tree):
    assert named(tree / "*.png") == ["a.png"]
    assert named(tree / "**" / "*.png") == ["[1]/e[2].png", "a.png", "v1.csv/f.png"]
    assert named(tree / "b*") == ["b/c.JPG", "b/d/IM0001"], "a folder that matches counts with its files"
    assert named(tree / "?.png") == ["a.png"]
    assert named(tree / "*.dcm") == []


def test_what_exists_under_that_very_name_is_no_pattern(tree):
    assert named(tree / "[1]") == ["e[2].png"]
    assert named(tree / "[1]" / "e[2].png") == ["e[2].png"]


def test_one_file(tree):
    assert list(sources.find(str(tree / "a.png"))) == [sources.Source(f"{tree}/a.png", "a.png", "in")]


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "again").symlink_to(tree / "b")
    (tree / "b" / "d" / "up").symlink_to(tree / "b")
    (tree / "dangling").symlink_to(tree / "nowhere")
    found = named(tree)
    assert [name for name in found if name.startswith(("again", "dangling", "b/d"))] == [
        "dangling", "again/c.JPG", "again/d/IM0001", "again/d/up", "b/d/IM0001", "b/d/up",
    ]  # fmt: skip
    assert named(tree / "**" / "c*") == ["b/c.JPG"]


def test_studies_are_named_after_folders(tree):
    assert {found.name: found.study for found in sources.find(str(tree))} == {
        "a.png": "in", "[1]/e[2].png": "[1]", "b/c.JPG": "b", "b/d/IM0001": "b/d", "v1.csv/f.png": "v1.csv",
    }  # fmt: skip


def test_a_text_manifest(tree, tmp_path):
    manifest = tree / "list.txt"
    manifest.write_text(f"a.png\r\n\n  {tree}/b/c.JPG\ngs://bucket/x y/z.png\n/elsewhere/q.png\n", encoding="utf-8-sig")
    assert list(sources.find(str(manifest))) == [
        sources.Source(f"{tree}/a.png", "a.png", "in"),
        sources.Source(f"{tree}/b/c.JPG", "b/c.JPG", "b"),
        sources.Source("gs://bucket/x y/z.png", "gs://bucket/x y/z.png", "gs://bucket/x y"),
        sources.Source("/elsewhere/q.png", "/elsewhere/q.png", "/elsewhere"),
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "cams/a.png.jpg"),
        ("patient00011/study1_positive/image1.png", "cams/patient00011/study1_positive/image1.png.jpg"),
        ("a.PNG", r"cams/a\.PNG~[0-9a-f]{16}\.jpg"),
        ("../../etc/passwd", r"cams/_\.\./_\.\./etc/passwd~[0-9a-f]{16}\.jpg"),
        ("/abs/x.png", r"cams/_/abs/x\.png~[0-9a-f]{16}\.jpg"),
        ("a.jpg/b.png", r"cams/a\.jpg~/b\.png~[0-9a-f]{16}\.jpg"),
        ("gs://b/-x.png", r"cams/gs_/_/b/_-x\.png~[0-9a-f]{16}\.jpg"),
    ],
)
def test_picture_names(name, path):
    import re

    assert re.fullmatch(path, names.cam_path(name, ".jpg"))


_part = st.one_of(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6),
    st.sampled_from(
        ["..", ".", "a", "A", "a.png", "a.PNG", "a.png.jpg", "a~", "x.jpg", "X.JPG", "ä", "é", "é", "n" * 255, "-rf", " "]
    ),
)
_name = st.lists(_part, min_size=1, max_size=6).map("/".join)


@given(st.lists(_name, min_size=2, max_size=8, unique=True), st.sampled_from([".jpg", ".png", ".webp"]))
def test_no_two_inputs_share_a_picture_and_none_escapes(given_names, suffix):
    paths = [names.cam_path(name, suffix) for name in given_names]
    assert len({path.casefold() for path in paths}) == len(paths)
    for path in paths:
        assert os.path.normpath(path) == path and path.startswith("cams/")
        assert all(len(part.encode()) <= 255 and part not in (".", "..") for part in path.split("/"))
        # No picture may lie where another needs a folder.
        assert not any(other.casefold().startswith(f"{path.casefold()}/") for other in paths)
