"""The exported directory as a promise: sealed, it says what it is; damaged, foreign or too new, it is refused."""

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer import artifact
from trainer.artifact import ArtifactError
from trainer.errors import ConfigError

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
    assert (
        loaded.uncertain_band == (0.35, 0.45) and loaded.format_version == artifact.FORMAT_VERSION
    )
    assert sorted(loaded.files) == [
        "MODEL_CARD.md",
        "model.keras",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
    ]
    # SHA-256 of b"graph", from coreutils.
    assert (
        loaded.files["saved_model.pb"]
        == "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"
    )


def test_it_may_be_moved(sealed, tmp_path):
    shutil.move(sealed, tmp_path / "elsewhere")
    assert artifact.load(tmp_path / "elsewhere").image_size == 64


def test_the_name_of_the_model_depends_on_its_weights_alone(tmp_path):
    first = artifact.seal(files(tmp_path / "a"), **FIELDS)
    again = artifact.seal(
        files(tmp_path / "b"), **(FIELDS | {"threshold": 0.9, "metrics": {}, "created": "later"})
    )
    other = artifact.seal(files(tmp_path / "c", weights=b"Weights"), **FIELDS)
    assert first.model_id == again.model_id != other.model_id
    (tmp_path / "a" / "MODEL_CARD.md").write_text("another card")
    assert artifact.seal(tmp_path / "a", **FIELDS).model_id == first.model_id


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.data-00000-of-00001", "model.keras", "MODEL_CARD.md"],
)
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
    with pytest.raises(
        ArtifactError, match="artifact format 2, this program reads up to 1; upgrade humerus"
    ):
        artifact.load(edited(sealed, format_version=2))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"model_id": "x"}', '{"format_version": "one"}']
)
def test_what_is_not_ours_is_refused(sealed, text):
    (sealed / artifact.MODEL_JSON).write_text(text)
    with pytest.raises(ArtifactError, match="damaged or not of this program"):
        artifact.load(sealed)


def test_bytes_that_are_no_text_are_refused(sealed):
    (sealed / artifact.MODEL_JSON).write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ArtifactError):
        artifact.load(sealed)


@pytest.mark.parametrize("field", ["threshold", "uncertain_band", "cam"])
def test_a_lacking_field_is_named(sealed, field):
    whole = json.loads((sealed / artifact.MODEL_JSON).read_text())
    assert artifact.parse(json.dumps(whole)).threshold == 0.4
    del whole[field]
    with pytest.raises(ArtifactError, match=f"lacks a field .*{field}"):
        artifact.parse(json.dumps(whole), source="gs://bucket/run")


def test_no_file_outside_is_ever_read(sealed):
    (sealed.parent / "secret").write_text("secret")
    digest = (
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # SHA-256 of b"secret"
    )
    for name in ("../secret", "variables/../../secret", str(sealed.parent / "secret")):
        with pytest.raises(ArtifactError, match=r"lacks its file|model_id cannot be"):
            listed = json.loads((sealed / artifact.MODEL_JSON).read_text())["files"]
            artifact.load(edited(sealed, files=listed | {name: digest}))


def test_no_folder_and_no_model_in_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"is not an exported model.*name the `artifact` folder of a run"
    ):
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
def test_a_label_by_threshold_and_band(sealed, band, probability, label):
    assert artifact.load(edited(sealed, uncertain_band=band)).label(probability) == label


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_id", "../../../etc"),
        ("model_id", None),
        ("image_size", 10**9),
        ("image_size", True),
        ("image_size", "64"),
        ("threshold", None),
        ("threshold", float("nan")),
        ("temperature", 0),
        ("temperature", float("inf")),
        ("uncertain_band", [0.1]),
        ("uncertain_band", "ab"),
        ("cam", []),
        ("files", {}),
        ("files", {"MODEL_CARD.md": "0"}),
        ("files", {"saved_model.pb": "0"}),
        ("files", {"saved_model.pb": 0}),
    ],
)
def test_a_field_that_no_export_wrote_is_named(sealed, field, value):
    expected = (
        "model_id"
        if field == "files" and all(isinstance(digest, str) for digest in value.values())
        else field
    )
    with pytest.raises(ArtifactError, match=rf"damaged \({expected} cannot be what was exported\)"):
        artifact.load(edited(sealed, **{field: value}))


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@example(changes={"format_version": float("inf")}, whole=None)
@given(
    changes=st.dictionaries(
        st.sampled_from([*FIELDS, "model_id", "files", "format_version"]), _JSON
    ),
    whole=_JSON,
)
def test_whatever_stands_in_model_json_is_an_artifact_or_a_refusal(changes, whole):
    weights = {"saved_model.pb": "0" * 64}
    model_id = hashlib.sha256(f"saved_model.pb:{'0' * 64}\n".encode()).hexdigest()[:16]
    good = {"format_version": 1, "model_id": model_id, "files": weights, **FIELDS}
    for fields in (good | changes, whole):
        try:
            described = artifact.parse(json.dumps(fields))
        except ArtifactError:
            continue
        assert described.label(0.5) in ("positive", "negative", "uncertain")
        assert re.fullmatch("[0-9a-f]{16}", described.model_id)


def test_what_is_amended_stays_the_same_model(sealed):
    before = artifact.load(sealed)
    (sealed / "openvino").mkdir()
    (sealed / artifact.INT8_NETWORK).write_text("network")
    engines = {"openvino/int8": {"within_tolerance": True}}
    amended = artifact.amend(sealed, before, engines=engines)
    assert artifact.load(sealed) == amended
    assert amended.engines == engines and amended.model_id == before.model_id
    assert set(amended.files) - set(before.files) == {artifact.INT8_NETWORK}


def test_other_weights_cannot_be_amended(sealed):
    before = artifact.load(sealed)
    (sealed / "saved_model.pb").write_bytes(b"others")
    with pytest.raises(ArtifactError, match="weights have changed"):
        artifact.amend(sealed, before, engines={})
