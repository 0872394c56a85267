"""The population stability index against hand-computed values, and its rate of false alarms."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from batch_inference import pipeline
from batch_inference.outputs import drift, summary
from batch_inference.outputs.records import Prediction
from tests.batch_inference.conftest import json_rows, picture
from tests.support import tiny_artifact

EDGES = [0.0, 0.25, 0.5, 0.75, 1.0]


def kept(shares: list[float], images: int) -> dict:
    return {"edges": EDGES, "shares": shares, "images": images}


def test_psi_by_hand():
    # (0.5 - 0.25) ln 2 + (0.5 - 0.75) ln(2 / 3) = 0.25 ln 3 = 0.27465
    assert drift.psi(np.array([0.5, 0.5]), np.array([0.25, 0.75]), 0.0) == pytest.approx(
        0.27465, abs=1e-5
    )
    # An empty bin: shares (1.1, 0.1) / 1.2 against (0.6, 0.6) / 1.2,
    # so 5/12 (ln(11/6) + ln 6) = 5/12 ln 11.
    assert drift.psi(np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0.1) == pytest.approx(
        5 / 12 * np.log(11)
    )
    assert drift.psi(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 0.1) == 0


def test_every_value_has_a_bin():
    assert [drift.bin_of(value, EDGES) for value in (-1, 0.0, 0.2499, 0.25, 0.75, 1.0, 7)] == [
        0,
        0,
        0,
        1,
        3,
        3,
        3,
    ]
    values = np.random.default_rng(0).uniform(0, 1, 1000)
    counts, _ = np.histogram(values, EDGES)
    assert [
        sum(drift.bin_of(value, EDGES) == index for value in values) for index in range(4)
    ] == counts.tolist()


@pytest.mark.parametrize(
    ("counts", "reading"),
    [
        ([2500] * 4, "none"),
        ([3600, 2500, 2200, 1700], "none"),
        ([4200, 2500, 2000, 1300], "some"),
        ([10000, 0, 0, 0], "much"),
    ],
)
def test_the_usual_reading_where_there_are_images_enough(counts, reading):
    assert drift.compare(counts, kept([0.25] * 4, 10000))["drift"] == reading


def test_a_large_index_that_chance_explains_is_no_drift():
    few, many = (
        drift.compare(counts, kept([0.25] * 4, 60))
        for counts in ([19, 15, 9, 7], [1900, 1500, 900, 700])
    )
    assert few["psi"] > 0.1 and few["psi"] < few["chance"] and few["drift"] == "none"
    assert many["psi"] > many["chance"] and many["drift"] == "some"


@pytest.mark.parametrize("images", [60, 300, 5000])
@pytest.mark.parametrize("reference_images", [60, 1272])
def test_without_drift_an_alarm_is_rare(images, reference_images):
    random = np.random.default_rng(1)
    shares = np.array([0.001, 0.05, 0.3, 0.4, 0.2, 0.045, 0.004, 0, 0, 0])
    reference = random.multinomial(reference_images, shares, 400) / reference_images
    scored = random.multinomial(images, shares, 400)
    edges = np.linspace(0, 255, 11).tolist()
    said = [
        drift.compare(
            counts.tolist(), {"edges": edges, "shares": row.tolist(), "images": reference_images}
        )["drift"]
        for counts, row in zip(scored, reference, strict=True)
    ]
    assert said.count("none") >= 0.93 * 400


@pytest.mark.parametrize(
    ("counts", "histogram", "reason"),
    [
        ([], None, "has no histogram"),
        ([99] * 4, {"edges": EDGES, "shares": [0.25] * 4}, "export it again"),
        ([5, 5, 5, 5], kept([0.25] * 4, 500), "20 images"),
        ([99] * 4, kept([0.25] * 4, 20), "20 in"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(counts, histogram, reason):
    said = drift.compare(counts, histogram)
    assert said["psi"] is None and reason in said["reason"] and "drift" not in said


def test_reasons_and_cautions_are_told_at_the_end_of_the_run(tmp_path, caplog):
    for folder in ("ward", "exam", "positive"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    (tmp_path / "in" / "empty.png").touch()
    # Too many for one study, as many as one may have, and a folder that only sorts.
    folders = ["ward"] * 13 + ["exam"] * 12 + ["positive"] * 14 + ["."] * 21
    for index, folder in enumerate(folders):
        cv2.imwrite(str(tmp_path / "in" / folder / f"{index}.png"), picture(index, 32, 32) // 4)
    edges = np.linspace(0, 255, 11).tolist()
    bright = {"edges": edges, "shares": [0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0], "images": 300}
    tiny_artifact.make(
        tmp_path / "model", reference={"brightness": bright}, dataset={"simulated": True}
    )
    told = pipeline.run(
        pipeline.Options(
            str(tmp_path / "in"), str(tmp_path / "model"), str(tmp_path / "out"), cam="none"
        )
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cautions"][-1].startswith("these images differ much")
    content = summary["drift"]
    assert content["brightness"]["drift"] == "much" and content["probability"]["psi"] is None
    counts, _ = np.histogram(
        [row["brightness"] for row in json_rows(tmp_path / "out", "predictions")], edges
    )
    assert content["brightness"]["shares"] == pytest.approx((counts / 60).tolist(), abs=1e-6)
    counted, of_the_model, of_studies, of_the_folder = str(told).splitlines()
    assert "60 of 61 images scored" in counted and "1 rejected (1 empty)" in counted
    assert (
        of_the_model
        == "caution: The model was trained on simulated radiographs and knows nothing of patients."
    )
    assert (
        of_the_folder.startswith("caution: these images differ much")
        and "brightness (PSI" in of_the_folder
    )
    oversized = (
        "1 folder (ward, 13 images) is too large to be one examination: each image in it was "
        "treated as a study of its own; if a folder is one examination, use --study_key=folder, or "
        "--study_key with a column of a manifest"
    )
    assert of_studies == f"caution: {oversized}"
    assert [record.message for record in caplog.records].count(oversized) == 1
    studies = {row["study"]: row["images"] for row in json_rows(tmp_path / "out", "studies")}
    assert studies.pop("exam") == 12
    assert len(studies) == 48 and set(studies.values()) == {1}


def test_oversized_folders_are_told_of_where_their_images_count_by_themselves():
    (told,) = summary.list_oversized_warnings({"a/b": 40, "d": 99, "e": 99})
    assert told.startswith(
        "3 folders (the largest: e, 99 images) are too large"
    ) and not summary.list_oversized_warnings({})
    row = Prediction("/in/a/b/0.png", "negative", 0.1, -1.0, "a/b/0.png", None, "m", "e", 9.0, "aa")
    oversized = {"a/b": 40}
    assert list(summary.find_split_up(row, oversized)) == ["a/b"]
    for study in ("9f86d081884c7d65", "0.png", "a/b", "x/a/b/0.png"):
        named = dataclasses.replace(row, study=study)
        assert not list(summary.find_split_up(named, oversized)), "DICOM or a manifest names it"
