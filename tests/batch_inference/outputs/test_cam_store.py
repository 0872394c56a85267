"""Maps packed now and drawn later, against the pictures that the scorer draws itself."""

import dataclasses
import json
import pathlib
import shutil

import cv2
import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
import tensorflow as tf

from batch_inference import pipeline
from batch_inference.outputs import cam_store, overlay_pictures
from batch_inference.outputs.records import PackedCam
from batch_inference.storage import storage_errors
from tests.batch_inference.conftest import json_rows, picture
from tests.support import small_disk
from trainer import artifact, radiograph
from trainer.drawing import legend, overlay
from trainer.errors import ConfigError, DataError


def score(source, model, output, **options):
    return pipeline.run(pipeline.Options(str(source), str(model), str(output), **options))


@pytest.fixture(scope="module")
def pictures(model, radiographs, tmp_path_factory) -> pathlib.Path:
    """Run the scorer with a lossless picture for each file."""
    output = tmp_path_factory.mktemp("pictures") / "out"
    score(radiographs, model, output, cam_format="png")
    return output


@pytest.fixture(scope="module")
def packed(model, radiographs, tmp_path_factory) -> pathlib.Path:
    """Run the scorer with packed maps, five to a file."""
    output = tmp_path_factory.mktemp("packed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cam_store, "MAPS_PER_PACK", 5)
        summary = score(radiographs, model, output, cam_store="parquet")
    assert summary.content["cams"] == 14
    return output


def maps(output: pathlib.Path) -> dict[str, PackedCam]:
    files = sorted(str(path) for path in (output / "cams").iterdir())
    return {
        row["uri"]: PackedCam(**row)
        for row in pyarrow.dataset.dataset(files).to_table().to_pylist()
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_each_row_names_the_file_that_holds_its_map(packed, radiographs):
    rows = json_rows(packed, "predictions")
    files = {str(path.relative_to(packed)) for path in packed.rglob("*.parquet")}
    assert len(rows) == 14 and len(files) == 3 and {row["cam"] for row in rows} == files
    for row in rows:
        held = pyarrow.parquet.read_table(packed / row["cam"]).to_pylist()
        assert [(own["label"], own["probability"]) for own in held if own["uri"] == row["uri"]] == [
            (row["label"], row["probability"])
        ]


def test_the_map_is_the_models_own_signs_included(packed, model):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    stored = maps(packed)
    values = []
    for uri, cam in stored.items():
        expected = serve(
            image=tf.constant(radiograph.load(pathlib.Path(uri).read_bytes(), 32)[None])
        )["cam"][0].numpy()
        values.append(np.frombuffer(cam.cam, "<f2").reshape(cam.cam_height, cam.cam_width))
        np.testing.assert_allclose(values[-1], expected, rtol=1.5e-3, atol=1e-5)
        assert (cam.scale, cam.image_size) == (artifact.load(model).cam["scale"], 32)
    assert min(map(np.min, values)) < 0 < max(map(np.max, values))


def test_a_legend_names_the_method_and_needs_the_run(packed, tmp_path):
    options = overlay_pictures.OverlayOptions(
        str(packed), str(tmp_path), cam_format="png", cam_legend=True
    )
    overlay_pictures.run(options)
    cam = maps(packed)[json_rows(packed, "predictions")[0]["uri"]]
    strip = legend.Legend(
        cam.scale, legend.UNIT, "Grad-CAM", cam.model, cam.cam_height, cam.cam_width, 32
    )
    found = cv2.imread(str(tmp_path / f"{cam.path}.png"))
    np.testing.assert_array_equal(found, legend.add(cam_store.draw_map(cam, "overlay"), strip))
    (tmp_path / "cams").mkdir(exist_ok=True)
    for pack in (packed / "cams").glob("*.parquet"):
        shutil.copy(pack, tmp_path / "cams")
    with pytest.raises(DataError, match=r"run\.json of a run, which --cam_legend needs"):
        overlay_pictures.run(dataclasses.replace(options, scored=str(tmp_path)))


@pytest.mark.parametrize("style", ["overlay", "heatmap", "side_by_side"])
def test_drawn_later_is_what_the_scorer_draws(packed, pictures, model, tmp_path, style):
    drawn = overlay_pictures.run(
        overlay_pictures.OverlayOptions(str(packed), str(tmp_path), style=style, cam_format="png")
    )
    assert (drawn.pictures, drawn.failed) == (14, 0)
    rows = json_rows(pictures, "predictions")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")} == {
        row["cam"] for row in rows
    }
    stored = maps(packed)
    for row in rows:
        later = cv2.imread(str(tmp_path / row["cam"]))
        if style == "overlay":
            now = cv2.imread(str(pictures / row["cam"]))
        else:
            cam = stored[row["uri"]]
            original = radiograph.read(pathlib.Path(row["uri"]).read_bytes()).pixels
            values = np.frombuffer(cam.cam, "<f2").reshape(cam.cam_height, cam.cam_width)
            now = overlay.draw(original, values, 32, cam.scale, style)
        assert later.shape == now.shape and psnr(later, now) > (60 if style == "heatmap" else 36)


def test_only_what_is_asked_for_is_drawn(packed, tmp_path):
    rows = json_rows(packed, "predictions")

    def drawn(name: str, **options) -> set[str]:
        told = overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(packed), str(tmp_path / name), **options)
        )
        found = {
            str(path.relative_to(tmp_path / name / "cams"))[:-4]
            for path in (tmp_path / name).rglob("*.jpg")
        }
        assert len(found) == told.pictures
        return {path.partition("~")[0].rpartition("/")[2] for path in found}

    def expected(fits) -> set[str]:
        return {pathlib.Path(row["uri"]).name for row in rows if fits(row)}

    assert drawn("one", uri="*/image3.tif") == {"image3.tif"}
    assert drawn("likely", min_probability=0.5) == expected(lambda row: row["probability"] >= 0.5)
    assert drawn("negative", label="negative") == expected(lambda row: row["label"] == "negative")
    with pytest.raises(DataError, match="none of the maps"):
        drawn("none", uri="*.gif")


def test_only_likely_images_are_packed_and_the_same_content_has_the_same_name(
    model, radiographs, tmp_path
):
    for name in ("a", "b"):
        score(
            radiographs,
            model,
            tmp_path / name,
            cam_store="parquet",
            cam_min_probability=0.5,
            format=("jsonl",),
        )
    rows = json_rows(tmp_path / "a", "predictions")
    assert {(row["cam"] is not None) == (row["probability"] >= 0.5) for row in rows} == {True}
    assert set(maps(tmp_path / "a")) == {row["uri"] for row in rows if row["probability"] >= 0.5}
    names = [
        sorted(path.name for path in (tmp_path / name / "cams").iterdir()) for name in ("a", "b")
    ]
    assert names[0] == names[1]


def test_a_pack_that_cannot_be_written_costs_its_images_only(
    model, radiographs, tmp_path, monkeypatch
):
    original, packs = cam_store.write_pack, []

    def second_fails(output, attempt, packed):
        packs.append(packed)
        if len(packs) == 2:
            raise storage_errors.StorageError("No space left on device")
        return original(output, attempt, packed)

    monkeypatch.setattr(cam_store, "write_pack", second_fails)
    monkeypatch.setattr(cam_store, "MAPS_PER_PACK", 4)
    score(radiographs, model, tmp_path, cam_store="parquet", overwrite=True)
    rejections = json_rows(tmp_path, "rejections")
    assert {(row["reason"], row["detail"]) for row in rejections} == {
        ("write_failed", "No space left on device")
    }
    assert {row["uri"] for row in rejections} == {cam.uri for cam in packs[1]}
    assert len(json_rows(tmp_path, "predictions")) == 14 - len(packs[1]) == len(maps(tmp_path))


def test_what_is_damaged_is_said(packed, tmp_path, caplog):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    (first, *_) = sorted((packed / "cams").iterdir())
    rows = pyarrow.parquet.read_table(first).to_pylist()
    rows[0]["picture"], rows[1]["cam"] = b"no picture", b"123"
    table = pyarrow.Table.from_pylist(rows, pyarrow.parquet.read_schema(first))
    damaged = tmp_path / "cams" / first.name
    pyarrow.parquet.write_table(table, damaged)
    drawn = overlay_pictures.run(
        overlay_pictures.OverlayOptions(str(tmp_path), str(tmp_path / "drawn"))
    )
    assert (drawn.pictures, drawn.failed) == (12, 2) and "2 could not be drawn" in str(drawn)
    damaged.write_bytes(first.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"{first.name} cannot be read as packed maps"):
        overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(tmp_path), str(tmp_path / "drawn"))
        )
    damaged.unlink()
    with pytest.raises(DataError, match=f"{first.name} cannot be read as packed maps"):
        overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(tmp_path), str(tmp_path / "drawn"))
        )


def test_maps_that_nobody_wants_are_not_packed(model, radiographs, tmp_path):
    with pytest.raises(ConfigError, match="omit one of them"):
        score(radiographs, model, tmp_path / "out", cam="none", cam_store="parquet")
    assert not (tmp_path / "out").exists()


def test_resuming_keeps_the_maps_and_a_changed_file_is_drawn_anew(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(2):
        cv2.imwrite(str(source / f"{index}.png"), picture(index))
    score(source, model, out, cam_store="parquet")
    before = {row["uri"]: row["cam"] for row in json_rows(out, "predictions")}
    cv2.imwrite(str(source / "0.png"), picture(9))
    score(source, model, out, cam_store="parquet", resume=True)
    after = {row["uri"]: row["cam"] for row in json_rows(out, "predictions")}
    changed, kept = str(source / "0.png"), str(source / "1.png")
    assert after[kept] == before[kept] and after[changed] > before[changed]
    overlay_pictures.run(
        overlay_pictures.OverlayOptions(str(out), str(tmp_path / "drawn"), cam_format="png")
    )
    score(source, model, tmp_path / "fresh", cam_format="png")
    for row in json_rows(tmp_path / "fresh", "predictions"):
        now, later = (
            cv2.imread(str(tmp_path / "fresh" / row["cam"])),
            cv2.imread(str(tmp_path / "drawn" / row["cam"])),
        )
        assert now.shape == later.shape and psnr(now, later) > 36


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_after_resuming_only_maps_of_rows_are_drawn(model, tmp_path, format_):
    """A pack of several maps stays for one of them; the drawn pictures of the others do not."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("changed", "kept", "removed", "spoilt"):
        cv2.imwrite(str(source / f"{name}.png"), picture(len(name)))
    options = {"cam_store": "parquet", "format": (format_,)}
    score(source, model, out, **options)
    for cam_format in ("jpeg", "png"):
        drawn = overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(out), str(out), cam_format=cam_format)
        )
        assert drawn.pictures == 4
    cv2.imwrite(str(source / "changed.png"), picture(9))
    (source / "removed.png").unlink()
    (source / "spoilt.png").write_bytes(b"no image any more")
    score(source, model, out, **options, resume=True)
    left = {path.name for path in (out / "cams").iterdir() if path.suffix != ".parquet"}
    assert left == {"kept.png.jpg", "kept.png.png"}
    drawn = overlay_pictures.run(overlay_pictures.OverlayOptions(str(out), str(tmp_path / "drawn")))
    assert drawn.pictures == 2
    assert {path.name for path in (tmp_path / "drawn" / "cams").iterdir()} == {
        "changed.png.jpg",
        "kept.png.jpg",
    }


def test_label_and_probability_that_select_a_map_are_those_of_its_row(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "out")
    (rows,) = (tmp_path / "out").glob("predictions.jsonl")
    first, *others = map(json.loads, rows.read_text().splitlines())
    first |= {"label": "uncertain", "probability": 0.99}
    rows.write_text("".join(json.dumps(row) + "\n" for row in (first, *others)))
    for number, selected in enumerate(({"label": "uncertain"}, {"min_probability": 0.99})):
        output = tmp_path / str(number)
        told = overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(tmp_path / "out"), str(output), **selected)
        )
        assert told.pictures == 1


def test_a_run_that_is_not_finished_and_the_folder_of_another_are_refused(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "out")
    record = tmp_path / "out" / "run.json"
    overlay_pictures.run(overlay_pictures.OverlayOptions(str(packed), str(tmp_path / "out")))
    run = json.loads(record.read_text())
    record.write_text(json.dumps(run | {"started": "2020-01-01T00:00:00+00:00"}))
    with pytest.raises(ConfigError, match="holds the results of a different run than --scored="):
        overlay_pictures.run(overlay_pictures.OverlayOptions(str(packed), str(tmp_path / "out")))
    record.write_text(json.dumps(run | {"state": "running"}))
    with pytest.raises(DataError, match="is not finished; finish it with humerus-score --resume"):
        overlay_pictures.run(
            overlay_pictures.OverlayOptions(str(tmp_path / "out"), str(tmp_path / "drawn"))
        )
    assert not (tmp_path / "drawn").exists()


def test_a_full_disk_ends_the_drawing(packed, tmp_path):
    sentence = r"no more pictures can be written to .* \(No space left"
    with small_disk.mounted(tmp_path / "disk", 16) as disk:
        options = overlay_pictures.OverlayOptions(
            str(packed), str(disk / "drawn"), cam_format="png"
        )
        with pytest.raises(storage_errors.UnwritableError, match=sentence):
            overlay_pictures.run(options)
