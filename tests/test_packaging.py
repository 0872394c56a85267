"""What is built and installed is whole: wheel, sdist, console programs, the data set's builder for
TensorFlow Datasets.
"""

import email
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest
import tensorflow as tf

from tests.support import dicom_files, documents, pictures, tiny_artifact

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("trainer", "batch_inference")

pytestmark = pytest.mark.slow


def output(*command: str | pathlib.Path, **options) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def tracked(*below: str) -> set[str]:
    return set(output("git", "ls-files", *below, cwd=ROOT).split())


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> pathlib.Path:
    """sdist, and the wheel that was built from it, of a copy of what is tracked: building leaves
    files in the tree.
    """
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    then = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    output(*build, dist, source, env=then)
    output(*build, dist / "direct", "--wheel", source, env=then)
    return dist


def wheel_in(folder: pathlib.Path) -> pathlib.Path:
    (wheel,) = folder.glob("humerus-*.whl")
    return wheel


def test_two_builds_give_the_same_wheel_bit_for_bit(dist):
    """One is built from the tree, the other, later and in another folder, from the sdist."""
    from_sdist, direct = (wheel_in(folder).read_bytes() for folder in (dist, dist / "direct"))
    assert from_sdist == direct
    (sdist,) = dist.glob("humerus-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(dist):
    held = {
        name for name in zipfile.ZipFile(wheel_in(dist)).namelist() if ".dist-info/" not in name
    }
    assert held == tracked(*PACKAGES)


def test_what_the_wheel_says_of_itself(dist):
    with zipfile.ZipFile(wheel_in(dist)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(wheel.read(name))
        assert any(name.endswith("/LICENSE") for name in wheel.namelist())
    assert (
        set(told["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
        and told["License"] == "Apache-2.0"
    )
    assert {"cpu", "gpu", "dev"} <= set(told.get_all("Provides-Extra"))


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory) -> pathlib.Path:
    """Folder of programs of an environment that holds nothing but the wheel, and sees the
    dependencies of this one.
    """
    environment = tmp_path_factory.mktemp("environment")
    output(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    output(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel_in(dist),
    )
    own = output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path in a .pth file adds a folder, and not what the .pth files in it would add: no editable
    # install of this tree.
    (pathlib.Path(own) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for package in PACKAGES:
        place = output(
            python, "-c", f"import {package}; print({package}.__file__)", cwd=environment
        ).strip()
        assert place.startswith(own)
    return environment / "bin"


def test_every_console_program_answers_from_another_folder(installed, tmp_path):
    named = re.findall(r'"(humerus-\w+) = ', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert sorted(path.name for path in installed.glob("humerus-*")) == sorted(named)
    for name in named:
        assert f"{name} --" in output(installed / name, "--help", cwd=tmp_path)
        assert output(installed / name, "--version", cwd=tmp_path).startswith("humerus ")


def test_the_ten_lines_of_the_readme_run_from_another_folder(installed, tmp_path):
    tiny_artifact.make(tmp_path / "runs" / "first" / "artifact")
    (tmp_path / "radiographs").mkdir()
    (tmp_path / "radiographs" / "arm.dcm").write_bytes(dicom_files.dicom_file(pictures.picture()))
    (tmp_path / "radiographs" / "notes.txt").write_text("no radiograph")
    (block,) = (b for b in documents.blocks(ROOT / "README.md") if b.language == "python")
    assert len(block.text.splitlines()) <= 10
    said = output(installed / "python", "-c", block.text, cwd=tmp_path)
    assert re.fullmatch(r"0 radiographs/arm.dcm (positive|negative) 0\.\d+\n", said)
    assert (tmp_path / "map0.png").read_bytes().startswith(b"\x89PNG")


TFDS_BUILD = """
import sys
from tensorflow_datasets.scripts.cli import build, cli_utils
cli_utils.make_flags_parser(build.Args, "")(sys.argv).execute()
"""
"""What `tfds build` does, without the packages that `tfds` loads for its other commands."""


def records(folder: pathlib.Path) -> dict[str, list[tf.train.Example]]:
    """By file; examples, since the bytes of one differ from run to run in the order of its
    features.
    """
    files = sorted(folder.glob("*.tfrecord-*"))
    return {
        file.name: [
            tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(file))
        ]
        for file in files
    }


def test_tfds_builds_the_data_set_that_humerus_prepare_makes(installed, tmp_path):
    output(installed / "humerus-phantom", "--output=simulated", "--patients=16", cwd=tmp_path)
    source = tmp_path / "simulated" / "MURA-v1.1"
    prepare = [
        installed / "humerus-prepare",
        f"--source={source}",
        "--layout=mura",
        "--data_dir=ours",
        "--json=-",
    ]
    ours = json.loads(output(*prepare, cwd=tmp_path))
    by_name = [
        "radiographs",
        "--imports=trainer.dataset.radiographs_dataset_builder",
        f"--manual_dir={source}",
    ]
    config = json.dumps({"source": str(source), "layout": "mura", "image_size": 64})
    by_path = [ROOT / "trainer/dataset/radiographs_dataset_builder.py", f"--config={config}"]
    for asked, folder in ((by_name, "by_name"), (by_path, "by_path")):
        output(
            installed / "python",
            "-c",
            TFDS_BUILD,
            *asked,
            f"--data_dir={tmp_path / folder}",
            cwd=tmp_path,
        )
    made = tmp_path / "by_name" / "radiographs" / "mura_xr_humerus_320" / "1.0.0"
    metadata = json.loads((made / "metadata.json").read_text())
    assert metadata["fingerprint"] == ours["fingerprint"] and metadata["splits"] == ours["splits"]
    assert records(made) == records(tmp_path / ours["directory"]) and len(records(made)) == 3
    assert (
        tmp_path / "by_path" / "radiographs" / "mura_xr_humerus_64" / "1.0.0" / "metadata.json"
    ).is_file()
