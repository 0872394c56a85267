"""Files of the same content: each keeps its row, and a study counts them once."""

import random

import cv2
import numpy as np
import pytest
from apache_beam.pvalue import TaggedOutput

from batch_inference import pipeline
from batch_inference.outputs import duplicates
from batch_inference.outputs.records import Prediction
from tests.batch_inference.conftest import json_rows, picture


def prediction(uri: str, study: str) -> Prediction:
    return Prediction(uri, "negative", 0.25, -1.0, study, None, "m", "e", 90.0, "aa")


@pytest.mark.parametrize("seed", range(10))
def test_the_first_by_uri_stays_and_each_study_counts_one_whatever_the_order(seed):
    rows = [prediction(uri, study) for uri, study in zip("cadbe", "12213", strict=True)]
    random.Random(seed).shuffle(rows)
    copies = dict(duplicates.find_repeated((row.sha256, row.study, row.uri) for row in rows))
    marked = list(duplicates.mark_duplicates(rows, copies))
    all_rows = {row.uri: row.duplicate_of for row in marked if not isinstance(row, TaggedOutput)}
    assert all_rows == {"a": None, "b": "a", "c": "a", "d": "a", "e": "a"}
    counted = {(row.value.study, row.value.uri) for row in marked if isinstance(row, TaggedOutput)}
    assert counted == {("1", "b"), ("2", "a"), ("3", "e")}


def test_a_copy_does_not_weigh_twice_in_its_study(model, tmp_path):
    for study, seeds in {"one": [0, 1, 1, 1], "two": [1, 2], "three": [1, 1]}.items():
        (tmp_path / "in" / study).mkdir(parents=True)
        for index, seed in enumerate(seeds):
            cv2.imwrite(str(tmp_path / "in" / study / f"{index}.png"), picture(seed))
    summary = pipeline.run(
        pipeline.Options(str(tmp_path / "in"), str(model), str(tmp_path / "out"), cam="none")
    )
    rows = json_rows(tmp_path / "out", "predictions")
    assert len(rows) == summary.content["scored"] == 8
    assert (
        sum(row["duplicate_of"] is not None for row in rows) == summary.content["duplicates"] == 5
    )
    studies = {row["study"]: row for row in json_rows(tmp_path / "out", "studies")}
    assert {name: study["images"] for name, study in studies.items()} == {
        "one": 2,
        "two": 2,
        "three": 1,
    }
    own = {row["uri"][-9:]: row["logit"] for row in rows}
    expected = 1 / (1 + np.exp(-(own["one/0.png"] + own["one/1.png"]) / 2))
    assert abs(studies["one"]["probability"] - expected) < 1e-6
    assert studies["three"]["highest"].endswith("three/0.png")
