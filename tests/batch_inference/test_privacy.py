"""Identifiers planted in files never come out: all that a run writes is searched for them."""

import gzip
import io
import json
import pathlib
import subprocess
import sys

import pyarrow.parquet
import pytest
from PIL import Image

from batch_inference.inputs.study_key import StudyKey
from tests.batch_inference.conftest import json_rows
from tests.support.planted import SECRETS, UID_ROOT, WORD, found_in, planted_files

SALT = f"{WORD}-salt"
PROGRAM = "import sys; from batch_inference import main; sys.exit(main.score(sys.argv))"


def written_below(folder: pathlib.Path) -> dict[str, bytes]:
    """Return every file's content by path, and what is inside Parquet and gzip files."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file():
            contents[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".gz":
                contents[f"{path.relative_to(folder)} unpacked"] = gzip.decompress(
                    path.read_bytes()
                )
            if path.suffix == ".parquet":
                table = pyarrow.parquet.read_table(path)
                contents[f"{path.relative_to(folder)} unpacked"] = (
                    f"{table.schema} {table.to_pylist()}".encode()
                )
    return contents


@pytest.fixture(scope="module", params=["jpeg", "png", "packed"])
def run(request, model, cache, tmp_path_factory):
    """Score all planted files and frames in every format; return output, files and log."""
    root = tmp_path_factory.mktemp("planted")
    files = (
        planted_files()
        if request.param == "jpeg"
        else {k: v for k, v in planted_files().items() if "cut" not in k}
    )
    (root / "in").mkdir()
    for name, content in files.items():
        (root / "in" / name).write_bytes(content)
    (root / "tmp").mkdir()
    flags = [
        f"--input={root}/in",
        f"--model={model}",
        f"--output={root}/out",
        "--frames=all",
        f"--id_salt={SALT}",
    ]
    flags += ["--format=jsonl,csv,parquet", "--cam=side_by_side"]
    flags += (
        ["--cam_store=parquet"] if request.param == "packed" else [f"--cam_format={request.param}"]
    )
    environment = {
        "PATH": "",
        "PYTHONPATH": ":".join(sys.path),
        "XDG_CACHE_HOME": str(cache),
        "TMPDIR": str(root / "tmp"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags],
        capture_output=True,
        env=environment,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return root / "out", files, done.stdout + done.stderr, root / "tmp"


def test_the_search_finds_what_is_planted():
    files = planted_files()
    assert {secret for content in files.values() for secret in found_in(content)} == set(SECRETS)
    assert all(
        found_in(content)
        for name, content in files.items()
        if "cut" not in name and "texts" not in name
    )
    assert found_in(f"x{WORD.upper()}".encode("utf-16")) == [WORD]


def test_nothing_planted_comes_out(run):
    output, files, said, temporary = run
    contents = written_below(output) | written_below(temporary)
    assert (
        any(name.endswith("unpacked") for name in contents)
        and "run.json" in contents
        and "summary.json" in contents
    )
    leaks = {
        name: found_in(content) or found_in(name.encode()) for name, content in contents.items()
    }
    assert {name: found for name, found in leaks.items() if found} == {}
    assert found_in(said) == []
    # It was not for want of results.
    rows, rejections = json_rows(output, "predictions"), json_rows(output, "rejections")
    assert len({row["uri"] for row in rows} | {row["uri"] for row in rejections}) == len(files)
    assert {pathlib.Path(row["uri"]).name for row in rows} >= {
        "plain.dcm",
        "codes.dcm",
        "film.dcm",
        "texts.png",
        "tags.tif",
    }
    assert {row["reason"] for row in rejections} >= {
        "bad_dicom",
        "truncated",
        "unsupported",
        "not_an_image",
    }


# What Pillow tells of the encoding itself.
PLAIN = {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_pictures_hold_no_metadata(run):
    output, *_ = run
    pictures = [
        content
        for name, content in written_below(output / "cams").items()
        if name.endswith((".jpg", ".png"))
    ]
    assert pictures or list((output / "cams").glob("*.parquet"))
    for content in pictures:
        with Image.open(io.BytesIO(content)) as picture:
            assert not set(picture.info) - PLAIN and not picture.getexif()


def test_studies_are_pseudonyms_and_the_salt_is_not_told(run):
    output, *_ = run
    by_name = {pathlib.Path(row["uri"]).name: row for row in json_rows(output, "predictions")}
    assert (
        by_name["plain.dcm"]["study"]
        == by_name["rle.dcm"]["study"]
        == StudyKey(salt=SALT).pseudonym(f"{UID_ROOT}.1")
    )
    assert by_name["texts.png"]["study"] == "texts.png"
    options = json.loads((output / "run.json").read_text())["options"]
    assert options["id_salt"] == StudyKey(salt=SALT).fingerprint_salt()


def test_only_the_words_of_the_standard_are_taken_for_tags(run):
    output, *_ = run
    by_name = {pathlib.Path(row["uri"]).name: row for row in json_rows(output, "predictions")}
    tags = ("modality", "body_part", "view")
    assert [by_name["plain.dcm"][tag] for tag in tags] == ["CR", "HUMERUS", "AP"]
    for name in ("codes.dcm", "capitals.dcm", "texts.png"):
        assert [by_name[name][tag] for tag in tags] == [None] * 3, name
