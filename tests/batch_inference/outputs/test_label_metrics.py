"""Scores are measured against the labels of a manifest, as `humerus-evaluate` measures them."""

import json
import pathlib
import re
import shutil

import pytest

from batch_inference import pipeline
from batch_inference.outputs import label_metrics, summary
from tests.batch_inference.conftest import json_rows
from trainer import artifact
from trainer.evaluation import evaluate
from trainer.evaluation.metric_tables import format_interval

MEASURED = ("image", "study", "counts", "confusion", "threshold", "uncertain_band")


@pytest.fixture(scope="module")
def images(radiographs, tmp_path_factory) -> pathlib.Path:
    """Copy radiographs into a folder whose name has a space, with a file that is none."""
    folder = tmp_path_factory.mktemp("labelled") / "im ages"
    folder.mkdir()
    for number, path in enumerate(sorted(radiographs.rglob("image*"))):
        shutil.copy(path, folder / f"{number:02d}é.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def lines(*further: str) -> list[str]:
    """Return a manifest: 7 patients, each with one study of two images and one label."""
    rows = [
        f"im ages/{n:02d}é.png;{('abnormal', 'Normal')[n // 2 % 2]};p{n // 2};1" for n in range(14)
    ]
    return ["Path;Label;patient;study", *rows, "im ages/broken.png;0;p7;1", *further]


def score(manifest, model, output, **options) -> summary.Summary:
    return pipeline.run(
        pipeline.Options(str(manifest), str(model), str(output), cam="none", **options)
    )


@pytest.mark.slow
def test_the_metrics_are_those_of_humerus_evaluate(images, model, tmp_path):
    manifest = images.parent / "list.csv"
    manifest.write_bytes("\r\n".join(lines()).encode("utf-8-sig"))
    expected = evaluate.evaluate_source(str(model), str(manifest), "manifest", ())
    done = score(manifest, model, tmp_path / "out", engine="tensorflow")
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["metrics"].keys() == set(MEASURED)
    assert (
        found["metrics"]["counts"] | {"images": 14, "patients": 7, "studies": 7}
        == (expected["counts"])
    )
    for level in ("image", "study"):
        for name, figures in expected[level].items():
            assert found["metrics"][level][name] == pytest.approx(figures, abs=1e-6), name
    assert found["metrics"]["confusion"] == expected["confusion"]
    (line,) = [line for line in str(done).splitlines() if line.startswith("against the labels")]
    auroc = expected["image"]["auroc"]
    assert "14 images (8 positive, 7 patients), threshold 0.500: auroc" in line
    assert f"auroc {format_interval(auroc)}" in line

    again = score(manifest, model, tmp_path / "out", engine="tensorflow", resume=True)
    assert again.kept == 14 and again.content["metrics"] == found["metrics"]
    other = score(manifest, model, tmp_path / "other", threshold=0.0).content["metrics"]
    assert other["threshold"] == 0 and other["confusion"]["image"]["fn"] == 0


@pytest.fixture(scope="module")
def scored(images, model, tmp_path_factory) -> pathlib.Path:
    """Score the images without labels."""
    output = tmp_path_factory.mktemp("scored") / "out"
    manifest = images.parent / "unlabelled.csv"
    manifest.write_text("path\n" + "\n".join(f"im ages/{n:02d}é.png" for n in range(14)))
    done = score(manifest, model, output)
    assert "metrics" not in done.content and "against" not in str(done)
    return output


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("im ages/05é.png;maybe;p9;9", r"list\.csv line 17: the label is 'maybe'; expected one of"),
        ("im ages/05é.png;;p9;9", "line 17: the column label is blank"),
        ("im ages/05é.png;1;;9", "line 17: the column patient is blank"),
        ("im ages/00é.png;1;p9;9", "was listed in line 2 already"),
        ("00é.png;1", "line 17: expected 4 cells as in the header, got 2"),
    ],
    ids=str,
)
def test_labels_that_cannot_be_used_are_named(images, model, scored, line, sentence):
    manifest = images.parent / "list.csv"
    manifest.write_text("\n".join(lines(line)))
    found = label_metrics.measure(str(manifest), str(scored), "0001", artifact.load(model))
    assert found.metrics is None
    (caution,) = found.cautions
    assert caution.startswith("the labels of the manifest were not used for the metrics: ")
    assert re.search(sentence, caution), caution


@pytest.mark.parametrize("scheme", ["s3", "hdfs", "azfs"])
def test_labels_of_files_on_all_storage_that_is_scored_are_used(images, model, scored, scheme):
    manifest = images.parent / "list.csv"
    manifest.write_text("\n".join(lines(f"{scheme}://bucket/a.png;1;p9;9")))
    found = label_metrics.measure(str(manifest), str(scored), "0001", artifact.load(model))
    assert found.metrics and found.metrics["counts"]["images"] == 14


def test_labels_that_cannot_be_used_cost_no_row(images, model, tmp_path):
    manifest = images.parent / "list.csv"
    manifest.write_text("\n".join(lines()).replace("01é.png;abnormal", "01é.png;0"))
    done = score(manifest, model, tmp_path / "out")
    assert done.content["scored"] == 14 and done.content["metrics"] is None
    assert (
        "caution: the labels of the manifest were not used for the metrics: study p0/1 has two"
        in str(done)
    )


def test_copies_count_once_in_their_study_as_in_its_row(images, model, tmp_path):
    copies = []
    for number, patient in enumerate(("p0", "p0", "p9")):
        shutil.copy(images / "00é.png", images / f"copy{number}.png")
        copies.append(f"im ages/copy{number}.png;1;{patient};1")
    manifest = images.parent / "list.csv"
    manifest.write_text("\n".join(lines(*copies)))
    done = score(manifest, model, tmp_path / "out")
    metrics = done.content["metrics"]
    assert metrics["counts"]["images"] == 15 and metrics["counts"]["studies"] == 8
    assert "count once per study: 2 copies were not measured" in str(done)
    errors = [
        (row["probability"] - (row["study"] == "p9/1" or int(row["study"][1]) % 2 == 0)) ** 2
        for row in json_rows(tmp_path / "out", "studies")
    ]
    assert metrics["study"]["brier"]["value"] == pytest.approx(sum(errors) / 8, abs=1e-6)
