"""`trainer.storage` on disk and in a bucket on loopback, which TensorFlow reaches by a proxy."""

import ast
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf

from tests.support import bucket_server
from trainer import storage

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINER = [
    path for path in (ROOT / "trainer").rglob("*.py") if path.name not in ("storage.py", "urls.py")
]

IN_A_BUCKET = """
import json, pathlib, sys, tempfile
from trainer import storage
uri, built = sys.argv[1:]
storage.write_text(f"{uri}/folder/a.txt", "first")
storage.write_text(f"{uri}/folder/a.txt", "second")
with storage.local_file(f"{uri}/folder/a.txt") as local:
    copied, content = local, pathlib.Path(local).read_text()
found = {
    "content": content,
    "copy is removed": not pathlib.Path(copied).exists(),
    "absent": storage.read_bytes(f"{uri}/absent"),
    "folder": storage.list_folder(f"{uri}/folder"),
    "folder/": storage.list_folder(f"{uri}/folder/"),
    "no folder": storage.list_folder(f"{uri}/no-folder"),
    "exists": [storage.exists(f"{uri}/folder/a.txt"), storage.exists(f"{uri}/absent")],
}
storage.remove_file(f"{uri}/absent")
storage.write_text(f"{uri}/target/stale", "of an earlier build")
storage.replace_folder(pathlib.Path(built), f"{uri}/target/", mark="mark.json")
with tempfile.TemporaryDirectory() as folder:
    storage.download(f"{uri}/target", ["deep/b.bin", "mark.json"], pathlib.Path(folder))
    found["downloaded"] = sorted(
        p.relative_to(folder).as_posix() for p in pathlib.Path(folder).rglob("*") if p.is_file()
    )
storage.remove(f"{uri}/folder")
json.dump(found, sys.stdout)
"""


@pytest.fixture
def built(tmp_path) -> pathlib.Path:
    """Make a folder with two files, of which `mark.json` marks the folder as complete."""
    folder = tmp_path / "built"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.bin").write_bytes(b"\x00\xff")
    (folder / "mark.json").write_text("{}")
    return folder


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run_in_a_bucket(server, code: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {
        **server.tensorflow_environment,
        "GCS_RETRY_CONFIG_MAX_RETRIES": "1",
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "1000",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bucket_is_read_written_and_replaced(tmp_path, built):
    with bucket_server.running(tmp_path) as server:
        uri = server.make_bucket("files")
        done = run_in_a_bucket(server, IN_A_BUCKET, uri, str(built))
        left = server.objects("files")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {
        "content": "second",
        "copy is removed": True,
        "absent": None,
        "folder": ["a.txt"],
        "folder/": ["a.txt"],
        "no folder": [],
        "exists": [True, False],
        "downloaded": ["deep/b.bin", "mark.json"],
    }
    assert left == {"target/deep/b.bin": b"\x00\xff", "target/mark.json": b"{}"}


def test_an_outage_is_one_kind_of_error_whatever_is_asked_for(tmp_path):
    code = """
import sys
from trainer import storage
uri = sys.argv[1]
for call in (storage.exists, storage.read_bytes, storage.glob, storage.list_folder):
    try:
        call(f"{uri}/*" if call is storage.glob else f"{uri}/a")
    except storage.StorageOutageError as error:
        print(call.__name__, error)
"""
    with bucket_server.running(tmp_path) as server:
        uri = server.make_bucket("files")
        server.faults.down = ""
        done = run_in_a_bucket(server, code, uri)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["exists", "read_bytes", "glob", "list_folder"]
    assert all("the storage does not answer (" in line for line in lines)


def test_a_local_folder_is_replaced(built, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "stale").write_text("of an earlier build")
    (target / "mark.json").write_text("{}")
    storage.replace_folder(built, str(target), mark="mark.json")
    assert files(target) == files(built)
    assert {path.name for path in tmp_path.iterdir()} == {"built", "target"}


def test_a_folder_that_cannot_be_written_anew_stays_as_it_is(built, tmp_path, monkeypatch):
    """A disk that is full at the second file is a double."""
    target = tmp_path / "target"
    storage.replace_folder(built, str(target), mark="mark.json")
    (target / "more").write_text("x")
    before, copy2 = files(target), shutil.copy2

    def fill(source: str, place: str, **options: object) -> str:
        if source.endswith("mark.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy2(source, place, **options)

    copytree = shutil.copytree
    monkeypatch.setattr(
        shutil,
        "copytree",
        lambda source, place, *others: copytree(source, place, copy_function=fill),
    )
    with pytest.raises(OSError, match=r"target can't be written \(the disk is full\)"):
        storage.replace_folder(built, str(target), mark="mark.json")
    assert files(target) == before
    assert {path.name for path in tmp_path.iterdir()} == {"built", "target"}


def test_a_folder_that_cannot_be_renamed_stays_as_it_is(built, tmp_path, monkeypatch):
    """A mount point is a double."""
    target = tmp_path / "target"
    target.mkdir()

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(pathlib.Path, "rename", refuse)
    with pytest.raises(OSError, match=r"target can't be written \(Device or resource busy\)"):
        storage.replace_folder(built, str(target), mark="mark.json")
    assert {path.name for path in tmp_path.iterdir()} == {"built", "target"}


def test_a_kill_between_the_two_renamings_loses_neither_folder(built, tmp_path, monkeypatch):
    target = tmp_path / "target"
    storage.replace_folder(built, str(target), mark="mark.json")
    (target / "more").write_text("of the former")
    before, rename = files(target), pathlib.Path.rename

    def then_killed(self: pathlib.Path, place: pathlib.Path) -> None:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        rename(self, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "rename", then_killed)
        storage.replace_folder(built, str(target), mark="mark.json")
    assert not target.exists()

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", fail)  # the next attempt doesn't get so far
    with pytest.raises(OSError, match="can't be written"):
        storage.replace_folder(built, str(target), mark="mark.json")
    assert files(target) == before


def test_a_link_to_a_folder_is_replaced_where_it_leads(built, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    storage.replace_folder(built, f"{tmp_path}/link", mark="mark.json")
    assert (tmp_path / "link").is_symlink() and files(tmp_path / "real") == files(built)


def test_a_write_makes_its_folder_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "new" / "file"
    storage.write_bytes(str(path), b"first")
    storage.write_bytes(str(path), b"second")
    assert files(tmp_path) == {"new/file": b"second"}


def test_a_write_that_fails_says_what_and_why(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file/below can't be written"):
        storage.write_text(f"{tmp_path}/file/below", "x")


@pytest.mark.parametrize("name", ["absent", "", "file/below", "pipe"])
def test_what_is_no_file_has_no_content(tmp_path, name):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert storage.read_bytes(f"{tmp_path}/{name}") is None


def test_a_file_may_have_any_name(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    pathlib.Path(path).write_bytes(b"x")
    assert storage.read_bytes(path) == b"x"


def test_the_copy_of_a_local_file_is_the_file_itself(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"x")
    before = set(pathlib.Path(tempfile.gettempdir()).iterdir())
    with storage.local_file(str(path)) as local:
        assert local == str(path)
        assert set(pathlib.Path(tempfile.gettempdir()).iterdir()) == before


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (tf.errors.NotFoundError(None, None, "gone"), FileNotFoundError),
        (tf.errors.PermissionDeniedError(None, None, "no right"), PermissionError),
        (tf.errors.UnauthenticatedError(None, None, "who?"), PermissionError),
        (tf.errors.AbortedError(None, None, "503"), storage.StorageOutageError),
        (tf.errors.UnavailableError(None, None, "cut"), storage.StorageOutageError),
        (tf.errors.DeadlineExceededError(None, None, ""), storage.StorageOutageError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_tensorflow_that_storage_causes_are_os_errors(error, kind):
    translated = storage.translate_error(error)
    assert type(translated) is kind and "\n" not in str(translated)


@pytest.mark.parametrize(
    "error", [tf.errors.InvalidArgumentError(None, None, "shape"), ValueError("other")]
)
def test_errors_that_storage_does_not_cause_stay_as_they_are(error):
    assert storage.translate_error(error) is error


@pytest.mark.parametrize("path", TRAINER, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_touches_files_through_tensorflow_or_parses_urls(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert "gfile" not in attributes
    assert not constants & {"://", "gs://"}
