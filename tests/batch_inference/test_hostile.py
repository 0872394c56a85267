"""Some 200 kinds of bad and odd files through the whole scorer: each ends as a row or rejection."""

import collections
import hashlib
import os
import pathlib
import socket

import numpy as np
import pytest

from batch_inference import pipeline
from batch_inference.inputs import sources
from batch_inference.outputs.records import REASONS, escape_reversibly
from tests.batch_inference.conftest import csv_rows, json_rows, picture
from tests.support.image_files import image_files
from tests.support.pictures import encode
from trainer.errors import DataError

ODD_NAMES = [
    "with a space.png",
    " space at both ends .png",
    "tab\tand line\nbreak\r.png",
    "'single' and \"double\", comma;.png",
    "-rf.png",
    "--output=elsewhere.png",
    "😀 العربية 日本.png",
    "e\u0301 and \u00e9.png",
    "two..dots.png",
    "ends with a dot.",
    "back\\slash.png",
    "$(touch owned) `id` %s {0} ${HOME}.png",
    "<script>alert(1)</script>.png".replace("/", "\u2215"),
    "=HYPERLINK(1).png",
    "a[1]*?{b,c}.png",
    "#fragment?query=1&b.png",
    "%2e%2e%2fescaped.png",
    "C:\\con.png",
    "NUL.png",
    "\u202egnp.txt",
    "\x01\x1b[31m.png",
    "~",
    "n" * 251 + ".png",
    "ü" * 125 + ".png",
    os.fsdecode(b"\xff\xfe not unicode.png"),
    "\\udcff\\udcfe not unicode.png",
]


def _write(path: pathlib.Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)


def _odd_places(root: pathlib.Path, good: bytes) -> dict[str, str | None]:
    """Links, pipes, folders and files that are hard to get at; the expected reason for each."""
    (root / "link to nothing.png").symlink_to(root / "nowhere.png")
    (root / "link to itself.png").symlink_to(root / "link to itself.png")
    (root / "link to the folder above").symlink_to(root)
    _write(root / "loop" / "inside.png", good)
    (root / "loop" / "a").symlink_to(root / "loop" / "b")
    (root / "loop" / "b").symlink_to(root / "loop" / "a")
    (root / "loop" / "round").symlink_to(root / "loop")
    (root / "link to a file.png").symlink_to(root / "loop" / "inside.png")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.png"))
    (root / "device.png").symlink_to("/dev/zero")
    (root / "kernel.png").symlink_to("/proc/kmsg")
    (root / "folder.png").mkdir()
    _write(root / "folder with files.png" / "image.png", good)
    _write(root / "very" / "/".join("deep" for _ in range(60)) / "image.png", good)
    _write(root / ".hidden.png", good)
    _write(root / ".hidden" / "image.png", good)
    _write(root / "vanishes.png", good)
    _write(root / "CASE.png", good)
    _write(root / "case.png", good)
    # The picture of the one has the name of the folder of the other's.
    _write(root / "image", good)
    _write(root / "image.jpg" / "image", good)
    return {
        **dict.fromkeys(
            [
                "link to nothing.png",
                "link to itself.png",
                "link to the folder above",
                "loop/a",
                "loop/b",
                "loop/round",
            ],
            "unreadable",
        ),
        **dict.fromkeys(["pipe.png", "socket.png", "device.png", "vanishes.png"], "unreadable"),
        "kernel.png": "empty",
        **dict.fromkeys(
            [
                "loop/inside.png",
                "link to a file.png",
                "folder with files.png/image.png",
                "CASE.png",
                "case.png",
                "image",
            ],
            None,
        ),
        "image.jpg/image": None,
        f"very/{'/'.join('deep' for _ in range(60))}/image.png": None,
    }


def _large(root: pathlib.Path) -> dict[str, str | None]:
    for name, shape in {
        "20000 x 5000.png": (5000, 20_000),
        "20000 x 5001.png": (5001, 20_000),
    }.items():
        _write(root / name, encode(np.full(shape, 90, np.uint8), "PNG"))
    return {"20000 x 5000.png": None, "20000 x 5001.png": "too_large"}


def _snapshot(root: pathlib.Path) -> dict[str, tuple]:
    """Everything below a folder, as it would change if somebody wrote there."""
    return {
        path: (status.st_mode, status.st_size, status.st_mtime_ns)
        for folder, folders, files in os.walk(root)
        for path in [os.path.join(folder, name) for name in (*folders, *files)]
        for status in [os.lstat(path)]
    }


@pytest.fixture
def hostile(tmp_path) -> tuple[pathlib.Path, dict[str, str | None]]:
    """Make the folder; return each file's reason of rejection, or None if it is scored."""
    root, good = tmp_path / "in", encode(picture(1), "PNG")
    root.mkdir()
    expected: dict[str, str | None] = {}
    for name, file in image_files().items():
        _write(root / "formats" / name, file.data)
        expected[f"formats/{name}"] = file.reason
    for index, name in enumerate(ODD_NAMES):
        _write(root / "names" / name, encode(picture(index), "PNG"))
        expected[f"names/{name}"] = None
    return root, expected | _odd_places(root, good) | _large(root)


@pytest.mark.timeout(300)
def test_each_is_a_row_or_a_rejection(hostile, model, tmp_path, monkeypatch):
    root, expected = hostile
    original, before = sources.find, _snapshot(tmp_path)

    def find_then_lose(*arguments):
        for source in original(*arguments):
            if source.name == "vanishes.png":
                pathlib.Path(source.uri).unlink(missing_ok=True)
            yield source

    monkeypatch.setattr(sources, "find", find_then_lose)
    # Listed twice: once to count. Both times it is gone when it comes to reading.
    monkeypatch.setattr("batch_inference.preflight.count_inputs", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    summary = pipeline.run(
        pipeline.Options(str(root), str(model), str(output), beam=("--direct_num_workers=2",))
    )
    rows, rejections = json_rows(output, "predictions"), json_rows(output, "rejections")
    found = [(row["uri"], None) for row in rows] + [
        (row["uri"], row["reason"]) for row in rejections
    ]
    assert dict(found) == {
        escape_reversibly(f"{root}/{name}"): reason for name, reason in expected.items()
    }
    assert len(found) == len(expected) > 200, "a file came out twice"
    assert {reason for reason in expected.values() if reason} <= set(REASONS)

    content = summary.content
    assert (content["inputs"], content["scored"], content["rejected"]) == (
        len(expected),
        len(rows),
        len(rejections),
    )
    assert content["rejections"] == collections.Counter(row["reason"] for row in rejections)
    for row in rejections:
        assert row["detail"] and "\n" not in row["detail"] and len(row["detail"]) <= 300
        assert (row["sha256"] is None) == (row["reason"] == "unreadable")
    empty = hashlib.sha256(b"").hexdigest()
    assert {row["sha256"] for row in rejections if row["reason"] == "empty"} == {empty}
    assert [row["uri"] for row in csv_rows(output, "predictions")] == [row["uri"] for row in rows]

    pictures = {
        str(path.relative_to(output)) for path in (output / "cams").rglob("*") if path.is_file()
    }
    assert pictures == {row["cam"] for row in rows} and len(pictures) == len(
        {name.casefold() for name in pictures}
    ) == len(rows)
    after = {
        path: status
        for path, status in _snapshot(tmp_path).items()
        if not path.startswith(str(output))
    }
    del before[f"{root}/vanishes.png"]
    # The folder that lost a file has another time; of all else, nothing changed.
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} <= {
        str(root)
    }


def test_none_but_bad_files_end_the_run_with_a_sentence_and_rows_of_what_was_wrong(
    hostile, model, tmp_path
):
    root, expected = hostile
    bad = [
        f"{root}/{name}" for name, reason in expected.items() if reason and name != "vanishes.png"
    ]
    (tmp_path / "bad.txt").write_text("\n".join(bad))
    with pytest.raises(
        DataError,
        match=rf"none of the {len(bad)} files could be scored \(\d+ bad_dicom, .*unsupported\)",
    ):
        pipeline.run(pipeline.Options(str(tmp_path / "bad.txt"), str(model), str(tmp_path / "out")))
    assert [row["uri"] for row in json_rows(tmp_path / "out", "rejections")] == sorted(bad)
