"""The scorer reads artifacts of every earlier format, and refuses later ones with advice."""

import dataclasses
import json
import shutil

import pytest

from batch_inference import main
from batch_inference.options import Options
from batch_inference.pipeline import run
from batch_inference.scoring import model_copy
from tests.batch_inference.conftest import json_rows
from trainer import artifact
from trainer.inference import artifact_copy

FIRST_FORMAT = {
    "model_id", "image_size", "preprocessing", "threshold", "temperature", "uncertain_band", "cam",
    "architecture", "dataset", "metrics", "versions", "created", "reference", "engines", "files",
    "format_version",
}  # fmt: skip
"""Keys of the first `model.json`; `reference` and `engines` were empty, `cam` described one map."""


@pytest.fixture
def oldest(model, tmp_path):
    """Today's tiny artifact with the `model.json` that the first exporter would have written."""
    folder = tmp_path / "oldest"
    shutil.copytree(model, folder)
    content = json.loads((folder / artifact.MODEL_JSON).read_text())
    content = {key: value for key, value in content.items() if key in FIRST_FORMAT}
    content |= {"format_version": 1, "reference": {}, "engines": {}}
    content["model_id"] = artifact.load(model).saved_model_id
    content["cam"] = {key: content["cam"][key] for key in ("layer", "height", "width", "scale")}
    assert set(content) == FIRST_FORMAT
    (folder / artifact.MODEL_JSON).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return folder


def test_an_artifact_of_the_first_format_scores_as_one_of_today(
    oldest, model, radiographs, tmp_path
):
    then = run(Options(str(radiographs), str(oldest), str(tmp_path / "then"), engine="tensorflow"))
    run(Options(str(radiographs), str(model), str(tmp_path / "now"), engine="tensorflow"))
    assert then.content["scored"] == 14 and then.content["cams"] == 14
    for table in ("predictions", "studies"):
        rows = [
            [{**row, "model": None} for row in json_rows(tmp_path / when, table)]
            for when in ("then", "now")
        ]
        assert rows[0] == rows[1]
    assert (tmp_path / "then" / "gallery.html").is_file()


def test_what_reads_an_artifact_fills_in_what_the_first_format_lacked(oldest):
    read = artifact.load(oldest)
    assert read.map_checks == read.engines == read.reference == {} and read.cautions() == []
    # Written again, it is of the same format, and still the same model.
    amended = artifact.amend(oldest, read, metrics={"test": {}})
    assert (
        dataclasses.asdict(artifact.load(oldest)) == dataclasses.asdict(amended)
        and amended.model_id == read.model_id
    )


def test_a_later_format_is_refused_everywhere_with_the_way_out(
    oldest, radiographs, tmp_path, capsys
):
    path = oldest / artifact.MODEL_JSON
    later = artifact.FORMAT_VERSION + 1
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"format_version": later, "of_the_future": 1})
    )
    said = (
        rf"artifact format {later}, this program reads up to {artifact.FORMAT_VERSION}; "
        "upgrade humerus"
    )
    for read in (artifact.load, model_copy.fetch, artifact_copy.open_artifact):
        with pytest.raises(artifact.ArtifactError, match=said):
            read(str(oldest))
    arguments = [f"--input={radiographs}", f"--model={oldest}", f"--output={tmp_path / 'out'}"]
    assert main.score(["humerus-score", *arguments]) == 3
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
