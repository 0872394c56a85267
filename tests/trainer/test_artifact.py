"""The exported directory as a promise: sealed, it says what it is; damaged, foreign or too new, it is refused."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from trainer import artifact
from trainer.artifact import ArtifactError

FIELDS = {
    "image_size": 64,
    "preprocessing": {"version": 1},
    "threshold": 0.4,
    "temperature": 1.5,
    "uncertain_band": (0.35, 0.45),
    "cam": {"layer": "features", "height": 2, "width": 2, "scale": 0.5},
    "architecture": {"backbone": "densenet121"},
    "dataset": {"name": "radiographs", "fingerprint": "f"},
    "metrics": {"test": {}},
    "versions": {"tensorflow": "2.21.0"},
    "created": "2026-01-01T00:00:00+00:00",
}


def files(root: pathlib.Path, weights: bytes = b"weights") -> pathlib.Path:
    (root / "variables").mkdir(parents=True)
    (root / "saved_model.pb").write_bytes(b"graph")
    (root / "variables" / "variables.data-00000-of-00001").write_bytes(weights)
    (root / "model.keras").write_bytes(b"keras")
    (root / "MODEL_CARD.md").write_text("# card\n")
    return root


@pytest.fixture
def sealed(tmp_path) -> pathlib.Path:
    artifact.seal(files(tmp_path / "artifact"), **FIELDS)
    return tmp_path / "artifact"


def edited(root: pathlib.Path, **changes) -> pathlib.Path:
    path = root / artifact.MODEL_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return root


def test_what_is_loaded_is_what_was_sealed(tmp_path):
    made = artifact.seal(files(tmp_path / "a"), **FIELDS)
    loaded = artifact.load(tmp_path / "a")
    assert dataclasses.asdict(loaded) == dataclasses.asdict(made)
    assert loaded.uncertain_band == (0.35, 0.45) and loaded.format_version == artifact.FORMAT_VERSION
    assert sorted(loaded.files) == [
        "MODEL_CARD.md",
        "model.keras",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
    ]
    # SHA-256 of b"graph", from coreutils.
    assert loaded.files["saved_model.pb"] == "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"


def test_it_may_be_moved(sealed, tmp_path):
    shutil.move(sealed, tmp_path / "elsewhere")
    assert artifact.load(tmp_path / "elsewhere").image_size == 64


def test_the_name_of_the_model_depends_on_its_weights_alone(tmp_path):
    first = artifact.seal(files(tmp_path / "a"), **FIELDS)
    again = artifact.seal(files(tmp_path / "b"), **(FIELDS | {"threshold": 0.9, "metrics": {}, "created": "later"}))
    other = artifact.seal(files(tmp_path / "c", weights=b"Weights"), **FIELDS)
    assert first.model_id == again.model_id != other.model_id
    (tmp_path / "a" / "MODEL_CARD.md").write_text("another card")
    assert artifact.seal(tmp_path / "a", **FIELDS).model_id == first.model_id


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "model.keras", "MODEL_CARD.md"])
def test_an_altered_or_missing_file_is_named(sealed, name):
    content = (sealed / name).read_bytes()
    (sealed / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(ArtifactError, match=f"{name} is not the file that was exported"):
        artifact.load(sealed)
    (sealed / name).unlink()
    with pytest.raises(ArtifactError, match=f"lacks its file {name}; copy the artifact again"):
        artifact.load(sealed)


def test_a_newer_format_is_refused_and_a_field_from_the_future_is_not(sealed):
    assert artifact.load(edited(sealed, invented_later=1)).threshold == 0.4
    with pytest.raises(ArtifactError, match="artifact format 2, this program reads up to 1; upgrade humerus"):
        artifact.load(edited(sealed, format_version=2))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"model_id": "x"}', '{"format_version": "one"}'])
def test_what_is_not_ours_is_refused(sealed, text):
    (sealed / artifact.MODEL_JSON).write_text(text)
    with pytest.raises(ArtifactError, match="damaged or not of this program"):
        artifact.load(sealed)


def test_bytes_that_are_no_text_are_refused(sealed):
    (sealed / artifact.MODEL_JSON).write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ArtifactError):
        artifact.load(sealed)


@pytest.mark.parametrize("field", ["threshold", "uncertain_band", "cam"])
def test_a_lacking_field_is_named(field):
    whole = {"format_version": 1, "model_id": "x", **FIELDS}
    assert artifact.parse(json.dumps(whole)).threshold == 0.4
    del whole[field]
    with pytest.raises(ArtifactError, match=f"lacks a field .*{field}"):
        artifact.parse(json.dumps(whole), source="gs://bucket/run")


def test_no_file_outside_is_ever_read(sealed):
    (sealed.parent / "secret").write_text("secret")
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # SHA-256 of b"secret"
    for name in ("../secret", "variables/../../secret", str(sealed.parent / "secret")):
        with pytest.raises(ArtifactError, match="lacks its file"):
            artifact.load(edited(sealed, files={name: digest}))


def test_no_folder_and_no_model_in_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"is not an exported model.*name the `artifact` folder of a run"):
        artifact.load(tmp_path)
    with pytest.raises(ArtifactError, match="holds no SavedModel"):
        artifact.seal(tmp_path, **FIELDS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "band, probability, label",
    [
        (None, 0.4, "positive"),
        (None, 0.3999, "negative"),
        ((0.35, 0.45), 0.35, "uncertain"),
        ((0.35, 0.45), 0.4, "uncertain"),
        ((0.35, 0.45), 0.45, "positive"),
        ((0.35, 0.45), 0.3499, "negative"),
    ],
)
def test_a_label_by_threshold_and_band(band, probability, label):
    whole = {"format_version": 1, "model_id": "x", **FIELDS, "uncertain_band": band}
    assert artifact.parse(json.dumps(whole)).label(probability) == label
