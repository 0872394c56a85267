"""Whole files, read and written so that nothing half-done is ever seen."""

import io
import json
import os
import pathlib
import threading
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import FileSystem

from batch_inference.scoring import model_copy
from batch_inference.storage import filesystem, storage_errors
from trainer.artifact import ArtifactError
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "No such file"),
        ("folder", "regular file"),
        ("pipe", "regular file"),
        ("n" * 300, "name too long"),
    ],
)
def test_reading_tells_in_one_sentence_why_not(tmp_path, name, sentence):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(storage_errors.StorageError, match=sentence) as caught:
        filesystem.read(str(tmp_path / name))
    assert str(tmp_path) not in str(caught.value)


def test_what_has_no_size_is_not_read(monkeypatch):
    """As files of the kernel: some of them, /proc/kmsg, wait for something to be said."""
    monkeypatch.setattr("builtins.open", None)
    assert filesystem.read("/proc/self/status") == b""


def test_a_file_larger_than_any_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(b"x" * 11)
    (tmp_path / "b").write_bytes(b"x" * 10)
    with pytest.raises(storage_errors.TooLargeError):
        filesystem.read(str(tmp_path / "a"))
    assert filesystem.read(str(tmp_path / "b")) == b"x" * 10


def test_readers_never_see_a_part_of_a_file(tmp_path):
    target, contents = str(tmp_path / "deep" / "er" / "file"), [b"a" * 300_000, b"b" * 300_000]
    filesystem.write(target, contents[0])
    over, seen = threading.Event(), set()

    def look():
        while not over.is_set():
            seen.add(filesystem.read(target))

    reader = threading.Thread(target=look)
    reader.start()
    for index in range(60):
        filesystem.write(target, contents[index % 2])
    over.set()
    reader.join()
    assert seen <= set(contents)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["file"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "plain").write_bytes(b"")
    for target in ("file", "plain/under"):
        with pytest.raises(storage_errors.StorageError):
            filesystem.write(str(tmp_path / target), b"x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "plain"]


def test_delete_takes_folders_and_spares_what_a_link_points_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "gone" / "y").mkdir(parents=True)
    for name in ("link", "gone", "never"):
        filesystem.delete(str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "x"]


class MemoryFiles(FileSystem):
    """A remote file system `mem://` that answers reads from a dictionary."""

    files: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def scheme(cls):
        return "mem"

    def open(self, path, mime_type=None, compression_type=None):
        if path not in self.files:
            raise FileNotFoundError(path)
        return io.BytesIO(self.files[path])

    def _refuse(self, *_, **__):
        raise NotImplementedError

    _list = copy = create = delete = exists = has_dirs = join = last_updated = _refuse
    checksum = metadata = mkdirs = rename = size = split = _refuse


@pytest.fixture
def bucket(model, monkeypatch) -> dict[str, bytes]:
    """The artifact of the tests at mem://models/m, in a dictionary."""
    files = {
        f"mem://models/m/{path.relative_to(model)}": path.read_bytes()
        for path in pathlib.Path(model).rglob("*")
        if path.is_file()
    }

    monkeypatch.setattr(MemoryFiles, "files", files)
    return files


def test_a_remote_artifact_is_copied_once_and_verified(bucket, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path, described = model_copy.fetch("mem://models/m/")
    assert path.parent == tmp_path / "humerus" / "artifacts" and path.name.startswith(
        described.model_id
    )
    assert {p.relative_to(path) for p in path.rglob("*") if p.is_file()} == {
        p.relative_to(model) for p in model.rglob("*") if p.is_file()
    }
    for name in [name for name in bucket if not name.endswith("model.json")]:
        del bucket[name]
    assert model_copy.fetch("mem://models/m")[0] == path
    # A copy that was damaged is refused, and fetched anew the next time.
    (path / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="checksum"):
        model_copy.fetch("mem://models/m")
    assert not path.exists()


def test_of_a_remote_artifact_that_was_verified_since_another_copy_is_made(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, before = model_copy.fetch("mem://models/m")
    record = {"openvino/bfloat16": {"within_tolerance": True}}
    described = json.loads(bucket["mem://models/m/model.json"]) | {"engines": record}
    bucket["mem://models/m/model.json"] = json.dumps(described).encode()
    _, after = model_copy.fetch("mem://models/m")
    assert after.engines == record and after.model_id == before.model_id


def test_without_a_cache_the_copy_lasts_as_long_as_the_process(bucket, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    path, described = model_copy.fetch("mem://models/m")
    assert path.name.startswith(described.model_id)
    assert model_copy.fetch("mem://models/m")[0] == path


def test_a_damaged_remote_artifact_leaves_no_copy(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bucket["mem://models/m/saved_model.pb"] = b"other"
    with pytest.raises(ArtifactError, match="checksum"):
        model_copy.fetch("mem://models/m")
    with pytest.raises(ConfigError, match="cannot be copied here"):
        model_copy.fetch("mem://models/other")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
