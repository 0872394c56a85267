"""These tests check that folders of simulated radiographs are reproducible and complete."""

import collections
import json
import pathlib

import cv2
import numpy as np
import pytest

from trainer.errors import ConfigError
from trainer.phantom import files
from trainer.phantom.render import View


def read_pictures(root: pathlib.Path) -> dict[str, bytes]:
    """Return the bytes of each picture by its path relative to `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}


def test_more_patients_change_no_byte(tmp_path: pathlib.Path) -> None:
    files.write(str(tmp_path / "few"), 3, 5)
    files.write(str(tmp_path / "more"), 6, 5)
    few, more = read_pictures(tmp_path / "few"), read_pictures(tmp_path / "more")
    assert len(few) < len(more)
    assert few == {path: more[path] for path in few}


def test_layout_is_that_of_mura(tmp_path: pathlib.Path) -> None:
    counts = files.write(str(tmp_path), 11, 0)
    root = tmp_path / "MURA-v1.1"
    found = read_pictures(root)
    assert counts == {"patients": 11, "images": len(found)}
    findings = json.loads((root / "findings.json").read_text())
    assert set(findings) == set(found)
    sides = collections.defaultdict(set)
    for path, data in found.items():
        split, part, patient, study, image = path.split("/")
        assert part == "XR_HUMERUS" and patient.startswith("patient") and len(patient) == 12
        assert study in {f"study{k}_{word}" for k in (1, 2, 3) for word in ("positive", "negative")}
        assert image in {f"image{k}.png" for k in (1, 2, 3, 4)}
        assert bool(findings[path]) == study.endswith("positive")
        sides[patient].add(split)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert (
            pixels.dtype == np.uint8
            and min(pixels.shape[:2]) >= 164
            and max(pixels.shape[:2]) <= 512
        )
        if pixels.ndim == 3:
            assert pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all()
        for finding in findings[path]:
            x, y, width, height = finding["box"]
            assert finding["kind"] in {"fracture", "plate", "nail", "pins", "cast"}
            assert (
                width > 0
                and height > 0
                and 0 <= x <= x + width <= pixels.shape[1]
                and 0 <= y <= y + height <= pixels.shape[0]
            )
    assert all(len(split) == 1 for split in sides.values()) and len(sides) == 11
    assert set.union(*sides.values()) == {"train", "valid"}
    assert (
        "SIMULATED" in (root / "SIMULATED.txt").read_text()
        and "seed: 0" in (root / "SIMULATED.txt").read_text()
    )


def test_finished_folder_is_kept_and_any_other_refused(tmp_path: pathlib.Path) -> None:
    first = files.write(str(tmp_path), 2, 0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert files.write(str(tmp_path), 2, 0) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for patients, seed in ((3, 0), (2, 1)):
        with pytest.raises(ConfigError, match="remove it, or name another --output"):
            files.write(str(tmp_path), patients, seed)
    next(tmp_path.rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match="lacks 1 of its"):
        files.write(str(tmp_path), 2, 0)


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[]", b"3", b"\xff"])
def test_finished_folder_with_damaged_findings_is_refused(
    tmp_path: pathlib.Path, content: bytes | None
) -> None:
    root = tmp_path / "MURA-v1.1"
    root.mkdir()
    (root / "SIMULATED.txt").write_text(files.describe(2, 0))
    if content is not None:
        (root / "findings.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"findings\.json is missing or damaged .*; remove"):
        files.write(str(tmp_path), 2, 0)


def test_foreign_folder_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "MURA-v1.1").mkdir()
    (tmp_path / "MURA-v1.1" / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="holds something else"):
        files.write(str(tmp_path), 2, 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["MURA-v1.1", "mine.txt"]


def test_interrupted_write_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = files.encode, []

    def stop_at_the_third(view: View) -> bytes:
        calls.append(view)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(view)

    monkeypatch.setattr(files, "encode", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        files.write(str(tmp_path), 8, 0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_is_replaced(tmp_path: pathlib.Path) -> None:
    stale = tmp_path / "MURA-v1.1.partial" / "train" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    files.write(str(tmp_path), 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["MURA-v1.1"]
    assert not list(tmp_path.rglob("stale.png"))


def test_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match="local folder"):
        files.write("gs://bucket/phantom", 2, 0)


def test_output_that_is_a_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="folder that can be written"):
        files.write(str(tmp_path / "taken"), 1, 0)
