"""A tiny model and a folder of small pictures in several formats, for all tests of the scorer."""

import csv
import json
import pathlib

import cv2
import numpy as np
import pytest

from tests.support import tiny_artifact

VERIFIED = {"openvino/float32": {"within_tolerance": True}}


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> pathlib.Path:
    """Make an artifact whose OpenVINO conversion is recorded as verified."""
    folder = tmp_path_factory.mktemp("model") / "artifact"
    tiny_artifact.make(folder, engines=VERIFIED)
    return folder


def picture(seed: int, height: int = 60, width: int = 44) -> np.ndarray:
    """uint8 [height, width], smooth and different for each seed."""
    random = np.random.default_rng(seed)
    return cv2.resize(
        random.integers(0, 256, (5, 4), dtype=np.uint8),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> pathlib.Path:
    """14 readable files of six kinds in MURA-like folders."""
    root = tmp_path_factory.mktemp("radiographs")
    suffixes = [".png", ".jpg", ".bmp", ".tif", ".webp", ".PNG", ""]
    for index in range(14):
        file = (
            root
            / f"patient{index // 4:05d}"
            / f"study{index // 2 % 2 + 1}_positive"
            / f"image{index}{suffixes[index % 7]}"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(index, 40 + 3 * index, 70 - 2 * index)
        if index == 12:
            pixels = pixels.astype(np.uint16) * 257
        _, encoded = cv2.imencode(suffixes[index % 7] or ".png", pixels)
        file.write_bytes(encoded.tobytes())
    return root


def json_rows(output: pathlib.Path, name: str) -> list[dict]:
    """All rows of `name`.jsonl or its shards, by URI or study."""
    rows = [
        json.loads(line)
        for shard in sorted(output.glob(f"{name}.jsonl*"))
        for line in shard.open(encoding="utf-8")
    ]
    return sorted(rows, key=lambda row: row.get("uri") or row["study"])


def csv_rows(output: pathlib.Path, name: str) -> list[dict]:
    """All rows of `name`.csv or its shards, by URI or study."""
    rows = []
    for shard in sorted(output.glob(f"{name}.csv*")):
        with shard.open(newline="", encoding="utf-8") as file:
            rows.extend(csv.DictReader(file))
    return sorted(rows, key=lambda row: row.get("uri") or row["study"])
