"""The whole pipeline against a plain loop over the same files, and what it does with bad ones."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import random

import cv2
import numpy as np
import pyarrow.dataset
import pytest
import tensorflow as tf

from batch_inference import pipeline
from batch_inference.outputs import output_folder, studies, summary
from tests.batch_inference.conftest import csv_rows, json_rows, picture
from tests.support import tiny_artifact
from trainer import artifact, radiograph
from trainer.artifact import ArtifactError
from trainer.errors import ConfigError, DataError
from trainer.evaluation.cases import Cases, aggregate_by_study

KEYS = [
    "uri",
    "label",
    "probability",
    "logit",
    "study",
    "cam",
    "model",
    "engine",
    "brightness",
    "sha256",
    "duplicate_of",
    "frame",
    "modality",
    "body_part",
    "view",
    "warnings",
    "dicom",
]
THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")


def score(source, model, output, **options) -> summary.Summary:
    return pipeline.run(pipeline.Options(str(source), str(model), str(output), **options))


@pytest.fixture(scope="module")
def eager(model, radiographs) -> dict[str, tuple[float, float]]:
    """(probability, logit) by path, each image alone through the SavedModel, without the scorer."""
    loaded = tf.saved_model.load(str(model))
    serve = loaded.signatures["serving_default"]
    answers = {}
    for path in radiographs.rglob("image*"):
        outputs = serve(image=tf.constant(radiograph.load(path.read_bytes(), 32)[None]))
        answers[str(path)] = (float(outputs["probability"][0]), float(outputs["logit"][0]))
    return answers


@pytest.mark.parametrize(
    ("engine", "batch_size", "beam"),
    [("tensorflow", 1, ()), ("tensorflow", 5, THREADS), ("openvino", 32, THREADS)],
)
def test_rows_equal_a_plain_loop(model, radiographs, eager, tmp_path, engine, batch_size, beam):
    summary = score(
        radiographs, model, tmp_path / "out", engine=engine, batch_size=batch_size, beam=beam
    )
    rows = json_rows(tmp_path / "out", "predictions")
    assert [row["uri"] for row in rows] == sorted(eager)
    for row in rows:
        probability, logit = eager[row["uri"]]
        assert row["probability"] == pytest.approx(probability, abs=2e-6)
        assert row["logit"] == pytest.approx(logit, abs=1e-5)
        assert row["label"] == ("positive" if probability >= 0.5 else "negative")
        assert row["engine"] == f"{engine}/float32"
        assert list(row) == KEYS
        square = radiograph.load(pathlib.Path(row["uri"]).read_bytes(), 32)
        assert row["brightness"] == pytest.approx(square.mean(), rel=1e-6)
        assert row["sha256"] == hashlib.sha256(pathlib.Path(row["uri"]).read_bytes()).hexdigest()
        assert {row[key] for key in ("duplicate_of", "frame", "modality", "body_part", "view")} == {
            None
        }
    assert {row["label"] for row in rows} == {"positive", "negative"}, (
        "the tiny model must tell these pictures apart"
    )
    assert summary.content["scored"] == 14


def test_a_threshold_of_ones_own_calls_images_and_studies_and_leaves_nothing_uncertain(
    radiographs, tmp_path
):
    tiny_artifact.make(tmp_path / "model", threshold=0.5, uncertain_band=(0.0, 1.0))
    own = score(radiographs, tmp_path / "model", tmp_path / "own", cam="none")
    assert set(own.content["labels"]) == {"uncertain"}
    probabilities = sorted(row["probability"] for row in json_rows(tmp_path / "own", "predictions"))
    asked = (probabilities[3] + probabilities[4]) / 2
    summary = score(
        radiographs, tmp_path / "model", tmp_path / "asked", cam="none", threshold=asked
    )
    assert (
        summary.content["labels"] == {"negative": 4, "positive": 10}
        and summary.content["threshold"] == asked
    )
    for name in ("predictions", "studies"):
        rows = json_rows(tmp_path / "asked", name)
        assert [row["label"] for row in rows] == [
            "positive" if row["probability"] >= asked else "negative" for row in rows
        ]
        assert [row["probability"] for row in rows] == [
            row["probability"] for row in json_rows(tmp_path / "own", name)
        ]


@pytest.fixture(scope="module")
def scored(model, radiographs, tmp_path_factory) -> pathlib.Path:
    """Run the scorer with defaults but lossless pictures; return the output."""
    output = tmp_path_factory.mktemp("scored") / "out"
    score(radiographs, model, output, cam_format="png", format=("jsonl", "csv", "parquet"))
    return output


def as_csv(value) -> str:
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else str(value)


@pytest.mark.parametrize("name", ["predictions", "studies", "rejections"])
def test_every_format_holds_the_same_rows(scored, name):
    from_parquet = pyarrow.dataset.dataset(
        sorted(str(path) for path in scored.glob(f"{name}*.parquet"))
    ).to_table()
    rows = json_rows(scored, name)
    assert sorted(from_parquet.to_pylist(), key=lambda row: row.get("uri") or row["study"]) == rows
    assert [{key: as_csv(value) for key, value in row.items()} for row in rows] == csv_rows(
        scored, name
    )
    assert bool(rows) == (name != "rejections")


@pytest.mark.parametrize(
    ("seed", "beam"),
    [
        (0, ()),
        (1, (*THREADS, "--s3_secret_access_key=hush")),
        (2, ("--direct_num_workers=3", "--direct_running_mode=multi_threading")),
        pytest.param(
            3,
            ("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_row_depends_on_nothing_but_its_image(model, radiographs, scored, tmp_path, seed, beam):
    # Another order, other neighbours in the batch, other numbers of workers.
    files = sorted(str(path) for path in radiographs.rglob("image*"))
    files = random.Random(seed).sample(files, k=len(files) - seed)
    manifest = tmp_path / "list.txt"
    manifest.write_text("\n".join(files))
    score(manifest, model, tmp_path / "out", beam=beam, cam_format="png")
    rows, expected = json_rows(tmp_path / "out", "predictions"), json_rows(scored, "predictions")
    # A manifest's files have no common root to be named after.
    own = ("study", "cam")
    assert [row | dict.fromkeys(own) for row in rows] == [
        row | dict.fromkeys(own) for row in expected if row["uri"] in files
    ]
    pictures = {row["uri"]: (scored / row["cam"]).read_bytes() for row in expected}
    assert all((tmp_path / "out" / row["cam"]).read_bytes() == pictures[row["uri"]] for row in rows)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_the_size_of_the_batch_changes_no_more_than_rounding(model, radiographs, tmp_path, engine):
    runs = []
    for size in (1, 7):
        score(radiographs, model, tmp_path / str(size), engine=engine, batch_size=size, cam="none")
        runs.append(json_rows(tmp_path / str(size), "predictions"))
    for one, other in zip(*runs, strict=True):
        for name in ("probability", "logit"):
            assert one.pop(name) == pytest.approx(other.pop(name), abs=2e-6)
        assert one == other


def test_the_record_tells_what_was_asked_of_beam_but_no_secret(model, radiographs, tmp_path):
    score(
        radiographs,
        model,
        tmp_path / "out",
        cam="none",
        beam=(*THREADS, "--s3_secret_access_key=hush"),
    )
    asked = json.loads((tmp_path / "out" / "run.json").read_text())["options"]["beam"]
    assert asked == {
        "runner": "FnApiRunner",
        "direct_num_workers": "2",
        "direct_running_mode": "multi_threading",
    }


def test_overlays_lie_where_the_rows_say_and_look_like_their_radiograph(scored):
    rows = json_rows(scored, "predictions")
    written = {
        str(path.relative_to(scored)) for path in (scored / "cams").rglob("*") if path.is_file()
    }
    assert written == {row["cam"] for row in rows}
    for row in rows:
        original = radiograph.read(pathlib.Path(row["uri"]).read_bytes()).pixels
        drawn = cv2.imread(str(scored / row["cam"]))
        assert drawn.shape == (*original.shape, 3)
        grey = np.ptp(drawn.astype(int), axis=2) == 0
        # One level apart: the faintest tint is rounded to grey.
        np.testing.assert_allclose(drawn[grey][:, 0].astype(int), original[grey], atol=1)


def test_only_images_above_the_probability_are_drawn(model, radiographs, tmp_path):
    score(radiographs, model, tmp_path / "out", cam_min_probability=0.5)
    for row in json_rows(tmp_path / "out", "predictions"):
        assert (row["cam"] is not None) == (row["probability"] >= 0.5)
    assert {row["cam"] == "" for row in csv_rows(tmp_path / "out", "predictions")} == {True, False}


@pytest.mark.parametrize("batch_size", [3, 32])
def test_an_image_that_the_model_fails_on_is_rejected_alone(tmp_path, batch_size):
    tiny_artifact.make(tmp_path / "model", poisonable=True)
    root = tmp_path / "in"
    root.mkdir()
    for index in range(9):
        pixels = picture(index, 32, 32)
        pixels[0, 0] = tiny_artifact.POISON if index in (2, 7) else 0
        cv2.imwrite(str(root / f"{index}.png"), pixels)
    score(root, tmp_path / "model", tmp_path / "out", batch_size=batch_size)
    assert [row["uri"][-5:] for row in json_rows(tmp_path / "out", "predictions")] == [
        f"{i}.png" for i in (0, 1, 3, 4, 5, 6, 8)
    ]
    rejections = json_rows(tmp_path / "out", "rejections")
    assert [(row["uri"][-5:], row["reason"]) for row in rejections] == [
        ("2.png", "inference_failed"),
        ("7.png", "inference_failed"),
    ]
    assert all("poison" in row["detail"] for row in rejections)


def test_a_picture_that_cannot_be_written_is_a_rejection(model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture(1))
    cv2.imwrite(str(tmp_path / "in" / "b.png"), picture(2))
    # What a crashed run might leave: a folder where the picture of `a.png` belongs.
    original = output_folder.claim

    def claim_then_block(*arguments):
        original(*arguments)
        (tmp_path / "out" / "cams" / "a.png.jpg" / "x").mkdir(parents=True)

    monkeypatch.setattr(output_folder, "claim", claim_then_block)
    score(tmp_path / "in", model, tmp_path / "out")
    assert [row["uri"][-5:] for row in json_rows(tmp_path / "out", "predictions")] == ["b.png"]
    assert [row["reason"] for row in json_rows(tmp_path / "out", "rejections")] == ["write_failed"]
    assert not list((tmp_path / "out").rglob("*.partial"))


NASTY = [
    'a "quoted", name.png',
    "line\nbreak.png",
    "-rf.png",
    "😀.png",
    "a[1]*?.png",
    "ä" * 120 + ".png",
    "CASE.png",
    "case.png",
    os.fsdecode(b"\xff\xfe.png"),
]


def test_nasty_names_come_through_both_formats(model, tmp_path):
    root = tmp_path / "in dir, with [odd] name"
    root.mkdir()
    _, png = cv2.imencode(".png", picture(3))
    for name in NASTY:
        (root / name).write_bytes(png.tobytes())
    score(root, model, tmp_path / "out")
    from_json, from_csv = (
        json_rows(tmp_path / "out", "predictions"),
        csv_rows(tmp_path / "out", "predictions"),
    )
    expected = sorted(
        f"{root}/{name}".encode("utf-8", "backslashreplace").decode() for name in NASTY
    )
    assert [row["uri"] for row in from_json] == [row["uri"] for row in from_csv] == expected
    assert [row["cam"] for row in from_json] == [row["cam"] for row in from_csv]
    assert [row["probability"] for row in from_json] == [
        float(row["probability"]) for row in from_csv
    ]
    assert len({row["cam"].casefold() for row in from_json}) == len(NASTY)
    assert all((tmp_path / "out" / row["cam"]).is_file() for row in from_json)


def test_a_picture_of_one_grey_level_has_a_warning_in_its_row_and_in_the_summary(model, tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "blank.png"), np.full((40, 30), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "in" / "plain.png"), picture(1))
    for resume in (False, True):
        finished = score(tmp_path / "in", model, tmp_path / "out", cam="none", resume=resume)
        rows = json_rows(tmp_path / "out", "predictions")
        assert [row["warnings"] for row in rows] == [["blank"], []]
        in_csv = csv_rows(tmp_path / "out", "predictions")
        assert [row["warnings"] for row in in_csv] == ["blank", ""]
        assert finished.content["warnings"] == {"blank": 1}
        assert "caution: images have warnings (1 blank)" in str(finished)


def test_studies_have_the_mean_logit_of_their_images(scored):
    images = json_rows(scored, "predictions")
    per_study = json_rows(scored, "studies")
    assert sorted({row["study"] for row in images}) == [study["study"] for study in per_study]
    assert per_study[0]["study"] == "patient00000/study1_positive"
    for study in per_study:
        own = [row for row in images if row["study"] == study["study"]]
        mean = 1 / (1 + math.exp(-sum(row["logit"] for row in own) / len(own)))
        assert study["probability"] == pytest.approx(mean, rel=1e-6)
        assert study["images"] == len(own)
        assert study["label"] == ("positive" if mean >= 0.5 else "negative")
        assert study["highest"] == max(own, key=lambda row: row["probability"])["uri"]
    assert [row["study"] for row in csv_rows(scored, "studies")] == [
        study["study"] for study in per_study
    ]


def test_training_and_scoring_have_one_rule_for_studies(model):
    """A random study order and a calibration of its own: the rows are the cases of evaluation."""
    described = dataclasses.replace(
        artifact.load(model), study_calibration={"temperature": 0.6, "intercept": -0.3}
    )
    generator = np.random.default_rng(0)
    logits = generator.normal(size=40).astype(np.float32).astype(float)
    study = generator.integers(9, size=40).astype(str)
    names = np.arange(40).astype(str)
    images = list(zip(study, logits, names, strict=True))
    rows = {row.study: row for row in studies.average_studies(images, described)}
    cases = Cases(np.full(40, 0.5), logits, np.zeros(40), study, ["p"] * 40, names)
    expected = aggregate_by_study(cases, described.study_scaling)
    assert len(rows) == len(expected)
    for name, probability in zip(expected.study_id, expected.probability, strict=True):
        assert rows[name].probability == pytest.approx(probability, rel=1e-6)
        assert rows[name].label == described.label(probability)


def test_manifest_columns_and_repeated_lines(model, radiographs, tmp_path):
    files = sorted(radiographs.rglob("image*"))[:3]
    manifest = tmp_path / "list.csv"
    lines = [f"s{i // 2},{path}\n" for i, path in enumerate(files)]
    # Of a file that is listed twice the first line counts, whatever the second says.
    manifest.write_text("".join(["study,path\n", *lines, f"a,{files[0]}\n", ",missing.png\n"]))
    score(manifest, model, tmp_path / "out")
    assert [(row["uri"], row["study"]) for row in json_rows(tmp_path / "out", "predictions")] == [
        (str(files[i]), f"s{i // 2}") for i in range(3)
    ]
    assert [(row["uri"], row["reason"]) for row in json_rows(tmp_path / "out", "rejections")] == [
        (f"{tmp_path}/missing.png", "unreadable")
    ]


def test_further_columns_of_a_manifest_are_carried_into_rows_and_rejections(
    model, radiographs, tmp_path
):
    good = sorted(radiographs.rglob("image*"))[0]
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        f'ward,path,"age, years",study\n"a ""b""\nc",{good},43,s1\nä,gone.png\n', encoding="utf-8"
    )
    score(manifest, model, tmp_path / "out")
    (row,), (rejection,) = (
        json_rows(tmp_path / "out", "predictions"),
        json_rows(tmp_path / "out", "rejections"),
    )
    assert list(row) == [*KEYS, "ward", "age, years"]
    assert (row["ward"], row["age, years"], row["study"]) == ('a "b"\nc', "43", "s1")
    assert (rejection["ward"], rejection["age, years"]) == ("ä", "")
    (in_csv,) = csv_rows(tmp_path / "out", "predictions")
    assert list(in_csv) == list(row) and (in_csv["ward"], in_csv["age, years"]) == (
        'a "b"\nc',
        "43",
    )


def test_the_same_content_is_scored_each_time_and_marked(model, tmp_path):
    root = tmp_path / "in"
    (root / "b").mkdir(parents=True)
    for name, seed in {"b/x.png": 1, "z.png": 1, "c.png": 2, "B.png": 1}.items():
        cv2.imwrite(str(root / name), picture(seed))
    score(root, model, tmp_path / "out", beam=THREADS)
    rows = json_rows(tmp_path / "out", "predictions")
    found = {row["uri"].removeprefix(f"{root}/"): row["duplicate_of"] for row in rows}
    # Upper case comes first.
    assert found == {
        "B.png": None,
        "b/x.png": f"{root}/B.png",
        "c.png": None,
        "z.png": f"{root}/B.png",
    }
    assert len({row["sha256"] for row in rows}) == len({row["probability"] for row in rows}) == 2
    assert (
        all((tmp_path / "out" / row["cam"]).is_file() for row in rows)
        and len({row["cam"] for row in rows}) == 4
    )


def test_summary_and_run_record_add_up(scored):
    content = json.loads((scored / "summary.json").read_text())
    rows = json_rows(scored, "predictions")
    assert content["inputs"] == content["scored"] == content["cams"] == 14
    assert content["labels"] == {
        label: sum(row["label"] == label for row in rows) for label in ("negative", "positive")
    }
    counts, _ = np.histogram(
        [row["probability"] for row in rows], content["probability_histogram"]["edges"]
    )
    assert content["probability_histogram"]["counts"] == counts.tolist()
    assert content["images_per_second"] == pytest.approx(14 / content["seconds"], abs=0.01)
    run = json.loads((scored / "run.json").read_text())
    assert (run["state"], run["model"], run["engine"]) == (
        "finished",
        rows[0]["model"],
        "openvino/float32",
    )


def test_results_are_replaced_only_when_asked(model, radiographs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    score(radiographs, model, out)
    with pytest.raises(ConfigError, match="--overwrite"):
        score(radiographs, model, out)
    assert len(list((out / "cams").rglob("*.jpg"))) == 14
    score(radiographs / "patient00000", model, out, overwrite=True, cam="none")
    assert [row["cam"] for row in json_rows(out, "predictions")] == [None] * 4
    assert not (out / "cams").exists()
    assert (out / "mine.txt").read_text() == "kept"


def test_a_run_that_breaks_is_not_called_finished(model, radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "build", lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        score(radiographs, model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "running"


@pytest.mark.parametrize("inside", ["out", "../"])
def test_output_and_input_may_not_contain_each_other(model, tmp_path, inside):
    root = tmp_path / "data" / "in"
    root.mkdir(parents=True)
    cv2.imwrite(str(root / "a.png"), picture(1))
    with pytest.raises(ConfigError, match="inside"):
        score(root, model, root / inside)
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == ["a.png", "in"]


@pytest.mark.parametrize(
    ("source", "artifact", "beam", "error", "sentence"),
    [
        ("nothing", "model", (), DataError, "nothing to score: no file matches"),
        ("empty.csv", "model", (), DataError, r"nothing to score: the manifest .* lists no file"),
        ("in", "model", ("--runner=DaskRunner",), ConfigError, "DaskRunner is refused"),
        ("in", "model", ("--runner=SparkRunner",), ConfigError, "SparkRunner is refused"),
        ("in", "model", ("--inptu=x",), ConfigError, "unknown option --inptu"),
        ("in", "model", ("--direct_num_workers=many",), ConfigError, "invalid int value: 'many'"),
        ("in", "old", (), ArtifactError, "preprocessing version 99"),
        ("in", "nothing", (), ConfigError, r"its model\.json cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    model, radiographs, tmp_path, source, artifact, beam, error, sentence
):
    places = {"in": radiographs, "model": model}
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.csv").write_text("path,label\n")
    tiny_artifact.make(tmp_path / "old", preprocessing={"version": 99})
    with pytest.raises(error, match=sentence):
        score(
            places.get(source, tmp_path / source),
            places.get(artifact, tmp_path / artifact),
            tmp_path / "out",
            beam=beam,
        )
    assert not (tmp_path / "out").exists()


def test_too_many_rejections_end_with_an_error(model, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        (tmp_path / "in" / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 3 files could be scored"):
        score(tmp_path / "in", model, tmp_path / "out1")
    cv2.imwrite(str(tmp_path / "in" / "good.png"), picture(1))
    with pytest.raises(DataError, match=r"3 of 4 files were rejected \(3 empty\)"):
        score(tmp_path / "in", model, tmp_path / "out2", max_rejection_rate=0.7)
    assert len(json_rows(tmp_path / "out2", "predictions")) == 1
    assert (
        score(tmp_path / "in", model, tmp_path / "out3", max_rejection_rate=0.75).content[
            "rejected"
        ]
        == 3
    )
