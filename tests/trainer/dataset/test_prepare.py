"""These tests prepare end to end: they check records, rejections and interrupted runs."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from batch_inference.inputs.decode import Decode
from batch_inference.inputs.study_key import StudyKey
from batch_inference.inputs.tasks import Task
from batch_inference.outputs.records import Source
from trainer import radiograph
from trainer.dataset import sources, splits
from trainer.dataset.locate import locate
from trainer.dataset.prepare import prepare
from trainer.dataset.summary import Summary
from trainer.errors import ConfigError, DataError
from trainer.options import PrepareOptions
from trainer.program import run_lock
from trainer.workers.file_results import Wanted

ROOT = pathlib.Path(__file__).resolve().parents[3]

# This reader runs without code of this project, as any user of TensorFlow Datasets would.
READER = """
import sys
import numpy as np, tensorflow_datasets as tfds
data_dir, out = sys.argv[1:]
columns = {}
direct = tfds.builder_from_directory(data_dir + "/radiographs/manifest_48/1.0.0").as_dataset()
loaded = tfds.load("radiographs/manifest_48", data_dir=data_dir, download=False)
assert direct.keys() == loaded.keys(), (direct.keys(), loaded.keys())
for split in direct:
    rows = [splits[split].as_numpy_iterator() for splits in (direct, loaded)]
    for row, other in zip(*rows, strict=True):
        assert row["path"] == other["path"] and (row["image"] == other["image"]).all()
        columns[row["path"].decode()] = row["image"]
assert not [name for name in sys.modules if name.split(".")[0] == "trainer"]
np.savez(out, **columns)
"""

# This run waits at one file, so that the kill comes before the end.
STALLED_PREPARE = """
import sys, time
from trainer.dataset import prepare, radiographs_dataset_builder as builder
from trainer.options import PrepareOptions
encode = builder.encode
def stall(example, image_size):
    if example.path == "positive/10.png":
        time.sleep(600)
    return encode(example, image_size)
builder.encode = stall
source, data_dir = sys.argv[1:]
prepare.prepare(PrepareOptions(
    source, "folders", data_dir, image_size=32, test_fraction=0.0, validation_fraction=0.0
))
"""

# Two images in each of two splits, of the files that `class_folders` writes.
FOUR_ROWS = (
    "negative/0.png,0,train\npositive/0.png,1,train\nnegative/1.png,0,val\npositive/1.png,1,val\n"
)


def picture(seed: int, shape=(60, 45), high: int = 256) -> np.ndarray:
    """Return smooth random shades, so that lossy formats stay close and areas differ."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(0, high, (6, 5)).astype(np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)).clip(0, high - 1)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "HUMERUS", "AP"
    dataset.PatientName = "Nobody^Known"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        16,
        12,
        11,
        0,
    )
    dataset.WindowCenter, dataset.WindowWidth = 2000, 3000
    dataset.PixelData = pixels.astype("<u2").tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def formats() -> dict[str, bytes]:
    grey = Image.fromarray(picture(0).astype(np.uint8))
    rgb = Image.merge("RGB", [grey, grey, grey])
    return {
        "grey.png": encoded(grey, "PNG"),
        "rgb.png": encoded(
            Image.fromarray(np.stack([picture(seed) for seed in (1, 2, 3)], -1).astype(np.uint8)),
            "PNG",
        ),
        "16bit.png": encoded(Image.fromarray(picture(4, high=4096).astype(np.uint16)), "PNG"),
        "palette.png": encoded(rgb.quantize(16), "PNG"),
        "colour.jpg": encoded(rgb, "JPEG", quality=80),
        "turned.jpg": encoded(
            grey, "JPEG", exif=(lambda exif: (exif.__setitem__(0x0112, 6), exif)[1])(Image.Exif())
        ),
        "large.tif": encoded(
            Image.fromarray(picture(5, (300, 411)).astype(np.uint8)), "TIFF", compression="tiff_lzw"
        ),
        "grey.bmp": encoded(grey, "BMP"),
        "rgb.webp": encoded(rgb, "WEBP"),
        "cr.dcm": dicom(picture(6, high=4096)),
    }


def class_folders(root: pathlib.Path, each: int = 6) -> pathlib.Path:
    for label, name in enumerate(("negative", "positive")):
        (root / name).mkdir(parents=True)
        for number in range(each):
            image = Image.fromarray(picture(100 * label + number).astype(np.uint8))
            (root / name / f"{number}.png").write_bytes(encoded(image, "PNG"))
    return root


def prepare_to_train(source: pathlib.Path, data_dir: pathlib.Path) -> Summary:
    """Prepare class folders, with all images to train on."""
    return prepare(
        PrepareOptions(
            str(source),
            "folders",
            str(data_dir),
            image_size=32,
            test_fraction=0.0,
            validation_fraction=0.0,
        )
    )


def test_a_folder_below_a_class_is_a_study_unless_it_holds_too_many(tmp_path):
    names = [
        *(f"positive/{number}.png" for number in range(3)),
        *(f"negative/exam {number // 3}/{number}.png" for number in range(12)),
        *(f"negative/ward/{number}.png" for number in range(13)),
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    examples = sources.list_source(str(tmp_path), "folders", ()).examples
    studies = {example.path: example.study_id for example in examples}
    assert all(example.patient_id == example.study_id for example in examples)
    assert studies.keys() == set(names)
    for name, study in studies.items():
        assert study == (str(pathlib.Path(name).parent) if "exam" in name else name)
    assert len({study for name, study in studies.items() if "exam" in name}) == 4
    _, told = splits.list_patient_warnings(examples)
    assert told.startswith(
        "1 folder (negative/ward, 13 images) is too large to be one examination: "
    )


def tree(root: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def records(directory: str) -> dict[str, dict]:
    splits = tfds.builder_from_directory(directory).as_dataset()
    return {
        row["path"].decode(): {**row, "split": split}
        for split in splits
        for row in splits[split].as_numpy_iterator()
    }


@pytest.mark.slow
def test_any_reader_gets_the_pixels_that_the_scorer_feeds(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rows = []
    for number, (name, data) in enumerate(formats().items()):
        (source / name).write_bytes(data)
        rows.append(
            f"{name},{number % 2},p{number // 2},"
            f"{('train', 'val', 'test')[number // 4]},ward {number}"
        )
    (source / "labels.csv").write_text("\n".join(["path,label,patient,split,ward", *rows]))
    result = prepare(
        PrepareOptions(f"{source}/labels.csv", "manifest", str(tmp_path / "data"), image_size=48)
    )
    assert [counts["images"] for counts in result.info.splits.values()] == [4, 4, 2]
    assert not result.info.rejections and not result.info.warnings

    subprocess.run(
        [sys.executable, "-c", READER, tmp_path / "data", tmp_path / "read.npz"],
        check=True,
        cwd=tmp_path,
    )
    read = np.load(tmp_path / "read.npz")
    assert sorted(read.files) == sorted(formats())
    for name, data in formats().items():
        expected = radiograph.load(data, 48)
        assert expected.std() > 5, f"{name} is too flat to prove anything"
        assert read[name].dtype == np.uint8
        np.testing.assert_array_equal(read[name], expected, err_msg=name)
        (fed,) = Decode(Wanted(48, picture=True), model_id="m", study_key=StudyKey())(
            [Task(Source(str(source / name), name))]
        )
        np.testing.assert_array_equal(read[name], fed.pixels, err_msg=name)

    kept = records(result.directory)
    assert (
        kept["rgb.png"]["label"] == 1
        and kept["rgb.png"]["patient_id"] == b"p0"
        and kept["rgb.png"]["study_id"] == b"rgb.png"
    )
    assert json.loads(kept["large.tif"]["attributes"]) == {
        "ward": "ward 6",
        "source_format": "TIFF",
        "source_mode": "grey",
        "source_width": "411",
        "source_height": "300",
    }
    tags = json.loads(kept["cr.dcm"]["attributes"])
    assert {name: value for name, value in tags.items() if name.startswith("dicom_")} == {
        "dicom_modality": "DX",
        "dicom_body_part": "HUMERUS",
        "dicom_view": "AP",
    }
    assert b"Nobody" not in b"".join(tree(tmp_path / "data").values())

    metadata = tfds.builder_from_directory(locate(str(tmp_path / "data"))).info.metadata
    assert metadata["preprocessing"] == radiograph.PREPROCESSING
    assert (
        metadata["image_size"] == 48
        and metadata["layout"] == "manifest"
        and not metadata["simulated"]
    )
    assert metadata["fingerprint"] == result.info.fingerprint
    assert {"ward", "source_mode", "dicom_view"} <= set(metadata["slices"])


def test_real_radiographs_reject_exactly_the_truncated(shared, tmp_path):
    source = shared / "data/fracatlas_shoulder/labels.csv"
    result = prepare(PrepareOptions(str(source), "manifest", str(tmp_path), image_size=64))
    with (pathlib.Path(result.directory) / "rejections.csv").open(newline="") as file:
        rejected = list(csv.DictReader(file))
    with source.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["path"] for row in rejected} == {
        row["file"] for row in listed if row["decodable"] == "0"
    }
    assert {row["reason"] for row in rejected} == {"truncated"} and len(rejected) == 6
    assert result.info.rejections == {"truncated": 6}

    kept = records(result.directory)
    assert len(kept) == 343
    sides = {}
    for row in listed:
        if row["decodable"] == "1":
            sides.setdefault(row["group"], set()).add(kept[row["file"]]["split"])
            assert kept[row["file"]]["label"] == int(row["label"])
    assert all(len(side) == 1 for side in sides.values())
    for split, counts in result.info.splits.items():
        chosen = [row for row in kept.values() if row["split"] == split]
        assert counts["images"] == len(chosen)
        assert counts["positives"] == sum(row["label"] for row in chosen)
        assert counts["patients"] == len({row["patient_id"] for row in chosen})
    out = result.format_table()
    assert "rejected: truncated 6; see rejections.csv" in out and result.directory in out


def test_rerun_keeps_the_data_set_and_other_content_needs_overwrite(tmp_path):
    source, data_dir = class_folders(tmp_path / "source"), tmp_path / "data"

    def run(**options):
        options = {"image_size": 32, "validation_fraction": 0.2, "seed": 4, **options}
        return prepare(PrepareOptions(str(source), "folders", str(data_dir), **options))

    first = run()
    before = tree(data_dir)
    again = run()
    assert again.reused and not first.reused
    assert (again.info, again.directory) == (first.info, first.directory)
    assert "already prepared" in again.format_table()

    changed = encoded(Image.fromarray(picture(999).astype(np.uint8)), "PNG")
    (source / "positive/0.png").write_bytes(changed)
    with pytest.raises(ConfigError, match="--overwrite"):
        run()
    assert tree(data_dir) == before

    # The old data set outlives a replacement that fails ...
    names = [path.name for path in (source / "positive").iterdir()]
    for name in names:
        (source / "positive" / name).rename(source / "positive" / f".{name}")
        (source / "positive" / name).write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"after refusals \(not_an_image 6\) the train split has no positive"
    ):
        run(overwrite=True)
    assert tree(data_dir) == before
    for name in names:
        (source / "positive" / f".{name}").replace(source / "positive" / name)

    # ... and gives way to one that succeeds, of which nothing else remains.
    replaced = run(overwrite=True)
    assert replaced.info.fingerprint != first.info.fingerprint
    np.testing.assert_array_equal(
        records(replaced.directory)["positive/0.png"]["image"], radiograph.load(changed, 32)
    )
    assert [path.name for path in data_dir.iterdir()] == ["radiographs"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_damaged_metadata_need_overwrite(tmp_path, content):
    source, data_dir = class_folders(tmp_path / "source"), tmp_path / "data"
    (data_dir / "radiographs").mkdir(parents=True)
    done = prepare(
        PrepareOptions(
            str(source), "folders", str(data_dir), image_size=32, validation_fraction=0.2
        )
    )
    pathlib.Path(done.directory, "metadata.json").write_bytes(content)
    with pytest.raises(DataError, match=r"metadata\.json is damaged .* pass --overwrite"):
        prepare(
            PrepareOptions(
                str(source), "folders", str(data_dir), image_size=32, validation_fraction=0.2
            )
        )


def test_a_data_set_without_its_metadata_needs_overwrite(tmp_path):
    source, data_dir = class_folders(tmp_path / "source"), tmp_path / "data"
    done = prepare(
        PrepareOptions(
            str(source), "folders", str(data_dir), image_size=32, validation_fraction=0.2
        )
    )
    pathlib.Path(done.directory, "metadata.json").unlink()
    with pytest.raises(DataError, match=r"lacks its metadata\.json; pass --overwrite"):
        prepare(
            PrepareOptions(
                str(source), "folders", str(data_dir), image_size=32, validation_fraction=0.2
            )
        )


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_in_the_place_of_a_data_set_are_kept(tmp_path, overwrite):
    source, data_dir = class_folders(tmp_path / "source"), tmp_path / "data"
    done = prepare(
        PrepareOptions(
            str(source), "folders", str(data_dir), image_size=32, validation_fraction=0.2
        )
    )
    place = pathlib.Path(done.directory)
    shutil.rmtree(place)
    place.mkdir()
    (place / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds mine\.txt, but no dataset_info\.json"):
        prepare(
            PrepareOptions(
                str(source), "folders", str(data_dir), image_size=32, overwrite=overwrite
            )
        )
    assert tree(data_dir) == {str((place / "mine.txt").relative_to(data_dir)): b"precious"}


def test_same_input_same_bytes(tmp_path):
    source = class_folders(tmp_path / "source")
    for name in ("one", "two"):
        prepare(PrepareOptions(str(source), "folders", str(tmp_path / name), image_size=32, seed=4))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_every_file_refused_leaves_nothing(tmp_path):
    source = class_folders(tmp_path / "source")
    for path in source.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"every file of .* was refused: empty 12"):
        prepare(
            PrepareOptions(str(source), "folders", str(tmp_path / "data"), image_size=32, seed=4)
        )
    assert not tree(tmp_path / "data")


def test_a_split_whose_files_are_all_refused_is_omitted_with_a_warning(tmp_path):
    source = class_folders(tmp_path / "source", each=2)
    (source / "broken.png").write_bytes(b"no image")
    rows = FOUR_ROWS + "broken.png,1,test\ngone.png,0,test\n"
    (source / "labels.csv").write_text("path,label,split\n" + rows)
    result = prepare(
        PrepareOptions(
            str(source / "labels.csv"), "manifest", str(tmp_path / "data"), image_size=32
        )
    )
    assert result.info.rejections == {"missing": 1, "not_an_image": 1}
    assert (result.info.splits["test"]["images"], result.info.splits["test"]["rejected"]) == (0, 2)
    assert any(
        "the test split has no negative and no positive images" in warning
        for warning in result.info.warnings
    )
    assert sorted(tfds.builder_from_directory(result.directory).info.splits) == [
        "train",
        "validation",
    ]


def test_a_dry_run_looks_for_what_a_manifest_lists(tmp_path):
    source = class_folders(tmp_path / "source", each=2)
    (source / "some.csv").write_text("path,label,split\n" + FOUR_ROWS + "gone.png,0,test\n")
    (source / "none.csv").write_text(
        "path,label\n" + "".join(f"elsewhere/{n}.png,{n % 2}\n" for n in range(40))
    )
    options = {"layout": "manifest", "data_dir": str(tmp_path / "data"), "image_size": 32}
    planned, done = (
        prepare(PrepareOptions(str(source / "some.csv"), **options), dry_run)
        for dry_run in (True, False)
    )
    assert (planned.info.splits, planned.info.rejections) == (
        done.info.splits,
        done.info.rejections,
    )
    assert f"listed files that are missing: 1, such as {source}/gone.png" in planned.format_table()
    with pytest.raises(
        DataError,
        match="none of the files that .*none.csv lists exists; "
        rf"the first is {source}/elsewhere/0.png",
    ):
        prepare(
            PrepareOptions(
                str(source / "none.csv"), **options | {"data_dir": str(tmp_path / "other")}
            ),
            dry_run=True,
        )
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "zip"}, ConfigError, "unknown layout 'zip'"),
        ({"image_size": 0}, ConfigError, "image_size must be from 32 to 4096 pixels, got 0"),
        ({"validation_fraction": 1.5}, ConfigError, "validation_fraction"),
        ({"source": ""}, ConfigError, "source is empty"),
        ({"data_dir": ""}, ConfigError, "data_dir is empty"),
        ({"layout": "mura", "body_parts": ()}, ConfigError, "no body part"),
        ({"source": "nowhere"}, DataError, "nowhere is not a folder"),
        ({"layout": "mura"}, DataError, "nothing in the MURA layout"),
    ],
)
def test_errors_write_nothing(tmp_path, options, error, message):
    source, data_dir = class_folders(tmp_path / "source", each=1), tmp_path / "data"
    options = {"source": str(source), "layout": "folders", "data_dir": str(data_dir), **options}
    with pytest.raises(error, match=message):
        prepare(PrepareOptions(**options))
    assert not data_dir.exists()


def test_simulated_sources_are_marked(tmp_path):
    source = class_folders(tmp_path / "source")
    (source / "SIMULATED.txt").touch()
    result = prepare(
        PrepareOptions(str(source), "folders", str(tmp_path / "data"), image_size=32, seed=4)
    )
    assert (
        result.info.simulated
        and tfds.builder_from_directory(result.directory).info.metadata["simulated"]
    )
    assert "simulated radiographs" in result.format_table()


def test_url_as_data_dir(tmp_path):
    """A `file://` URL is handled as an object store: built locally, then copied, info file last."""
    source = class_folders(tmp_path / "source")
    url = f"file://{tmp_path}/data"
    options = {"layout": "folders", "image_size": 32, "seed": 4}
    result = prepare(PrepareOptions(f"file://{source}", data_dir=url, **options))
    prepare(PrepareOptions(str(source), data_dir=str(tmp_path / "local"), **options))
    assert tree(tmp_path / "data") == tree(tmp_path / "local")
    assert locate(url) == result.directory == f"{url}/radiographs/folders_32/1.0.0"

    # A partial copy has no info file. The next run replaces it completely.
    (tmp_path / "data/radiographs/folders_32/1.0.0/dataset_info.json").unlink()
    (tmp_path / "data/radiographs/folders_32/1.0.0/stray").touch()
    with pytest.raises(DataError, match="no prepared data set"):
        locate(url)
    assert not prepare(PrepareOptions(f"file://{source}", data_dir=url, **options)).reused
    assert tree(tmp_path / "data") == tree(tmp_path / "local")


@pytest.mark.parametrize("kind", ["pipe", "endless", "dangling"])
def test_what_is_no_file_is_refused_and_holds_nobody_up(tmp_path, kind):
    source, data_dir = class_folders(tmp_path / "source", each=3), tmp_path / "data"
    odd = source / "positive/odd.png"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to({"endless": "/dev/zero", "dangling": "/nowhere"}[kind])
    result = prepare_to_train(source, data_dir)
    assert result.info.splits["train"]["images"] == 6
    assert result.info.rejections == {"missing" if kind == "dangling" else "unreadable": 1}


def test_killed_in_the_middle_then_run_again(tmp_path):
    source, data_dir = class_folders(tmp_path / "source", each=20), tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    place = data_dir / "radiographs/folders_32"
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED_PREPARE, source, data_dir],
        env=environment,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(place.glob(".incomplete/radiographs/*/incomplete.*")):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (place / ".incomplete").exists(), "the kill came too early or too late"
    with pytest.raises(DataError, match="no prepared data set"):
        locate(str(data_dir))

    result = prepare_to_train(source, data_dir)
    assert result.info.splits["train"]["images"] == 40 == len(records(locate(str(data_dir))))
    assert [path.name for path in place.iterdir()] == ["1.0.0"]


def test_a_second_run_on_the_same_data_set_is_refused(tmp_path):
    source, data_dir = class_folders(tmp_path / "source"), tmp_path / "data"
    options = PrepareOptions(str(source), "folders", str(data_dir), image_size=32, seed=4)
    with run_lock.hold(f"{data_dir}/radiographs/folders_32", "another"):
        with pytest.raises(ConfigError, match="folders_32 is being written by process"):
            prepare(options)
        # Another size is another data set.
        assert prepare(dataclasses.replace(options, image_size=40)).info.image_size == 40
    assert not prepare(options).reused


@pytest.mark.parametrize("kind", ["fifo", "device", "dangling", "folder", "sparse"])
def test_a_manifest_that_is_no_file_is_refused(tmp_path, kind):
    manifest = tmp_path / "list.csv"
    if kind == "fifo":
        os.mkfifo(manifest)
    elif kind == "folder":
        manifest.mkdir()
    elif kind == "sparse":
        manifest.touch()
        os.truncate(manifest, 1 << 40)
    else:
        manifest.symlink_to({"device": "/dev/zero", "dangling": "/nowhere"}[kind])
    with pytest.raises(DataError, match=f"^{manifest} is not a file"):
        prepare(PrepareOptions(str(manifest), "manifest", str(tmp_path / "data"), image_size=32))
    assert not (tmp_path / "data").exists()
